"""The rules: numerical stability first, then algebra."""

from __future__ import annotations

from lossdsl.graph.rewrite.engine import Rule

RULES: tuple[Rule, ...] = ()
