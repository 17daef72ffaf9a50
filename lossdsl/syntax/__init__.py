"""Program text: sources, grammar to tree, layout, diagnostics."""
