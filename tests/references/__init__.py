"""Plain torch versions of the standard library's losses, one file a paper: slow, direct, no compiler."""

from .base import Case, Draw, Reference

__all__ = ["Case", "Draw", "Reference"]
