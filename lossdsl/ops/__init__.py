"""The tables of operations: everything that the compiler knows of each, in one place."""
