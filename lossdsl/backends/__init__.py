"""Lowering of index graphs to linear code, and what is emitted from it."""
