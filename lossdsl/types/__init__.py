"""The layers of types: lengths, domains, coupling."""
