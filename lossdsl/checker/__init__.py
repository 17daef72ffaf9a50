"""The checker: a syntax tree becomes an index graph, or diagnostics.

`program.check_module` checks a file, `program.elaborate` one function, `resolve` finds what a user names, `modules` loads files.
"""
