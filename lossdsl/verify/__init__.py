"""Proofs and counterexamples for `ensures`; not in this version."""
