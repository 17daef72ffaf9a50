"""Rewriting: a table of named rules, each with its side condition, applied bottom-up."""

from lossdsl.graph.rewrite.engine import Rule, rewritten
from lossdsl.graph.rewrite.rules import RULES

__all__ = ["RULES", "Rule", "rewritten"]
