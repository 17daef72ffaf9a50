"""The index graph: building, ranges, coupling, the reference interpreter, rewrites."""
