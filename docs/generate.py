"""Writes docs/operations.md from the tables in lossdsl/ops: `python docs/generate.py`. The tests check that it is up to date."""

from __future__ import annotations

from pathlib import Path

from lossdsl.graph.rewrite import RULES
from lossdsl.ops.axes import ALONG, REDUCTIONS
from lossdsl.ops.elementwise import ELEMENTWISE
from lossdsl.ops.solvers import SOLVERS

HEAD = """# Operations

Made by `docs/generate.py` from the tables that the compiler itself reads (`lossdsl/ops/`). *Gradient* says no where an
operation passes none.
"""
SYMBOLS = {
    "add": "a + b", "sub": "a - b", "mul": "a * b", "div": "a / b", "neg": "-a", "pow": "a ^ b, pow(a, b)", "floordiv": "a // b",
    "mod": "a % b", "lt": "a < b", "le": "a <= b", "gt": "a > b", "ge": "a >= b", "eq": "a == b", "ne": "a != b", "and": "a and b",
    "or": "a or b", "not": "not a", "cosine": "cos(x)", "where": "where(c, a, b)",
}  # fmt: skip


def operations() -> str:
    """The text of docs/operations.md."""
    lines = [HEAD, "## Of one element", "", "| written | is | arguments | gradient |", "| --- | --- | --- | --- |"]
    for op in ELEMENTWISE.values():
        names = ["x", "y", "z"][: op.arity]
        written = SYMBOLS.get(op.name, f"{op.name}({', '.join(names)})")
        needs = ", ".join(f"{n} {d}" for n, d in zip(names, op.domain, strict=False) if d is not None)
        lines.append(
            f"| `{written}` | {_cell(op.doc)} | {_cell(needs) or 'any'} | {'yes' if op.derivative else 'no'} |"
        )
    lines += ["", "## Over axes", "", "| written | is | over nothing | gradient |", "| --- | --- | --- | --- |"]
    for op in REDUCTIONS.values():
        empty = "needs `else`" if op.empty is None else f"`{op.empty}`"
        lines.append(f"| `{op.name}[N](x)` | {_cell(op.doc)} | {empty} | {'yes' if op.weights else 'no'} |")
    lines += [
        "| `count[N](c)` | How many conditions hold. | `0` | no |",
        "| `var[N](x)`, `std[N](x)` | Variance and standard deviation, dividing by the count. | needs `else` | yes |",
        "", "## Along axes", "", "| written | is | gradient |", "| --- | --- | --- |",
    ]  # fmt: skip
    for op in ALONG.values():
        joint = f", `{op.name}[H, W](x)` jointly" if op.joint else ""
        lines.append(f"| `{op.name}[K](x)`{joint} | {_cell(op.doc)} | {'yes' if op.pullback else 'no'} |")
    lines += [
        "| `flip[T](x)` | Backwards. | yes |",
        "| `top[K](x, k = 10)` | The k largest, descending. | yes |",
        "", "## Solvers", "", "| written | is |", "| --- | --- |",
    ]  # fmt: skip
    for op in SOLVERS.values():
        shapes = ", ".join(f"[{', '.join(a)}]" for a in op.arguments)
        lines.append(f"| `{op.name}({shapes})` | {_cell(op.doc)} |")
    lines += [
        "", "## Rewrites", "",
        "Applied before lowering, each tested against the interpreter in value and gradient. All are identities of the real-valued program.",
        "", "| rule | what it does | fires on |", "| --- | --- | --- |",
    ]  # fmt: skip
    for rule in RULES:
        body = "; ".join(line.strip() for line in rule.example.splitlines()[1:])
        lines.append(f"| {rule.name} | {_cell(rule.doc)} | `{_cell(body)}` |")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    (Path(__file__).parent / "operations.md").write_text(operations(), encoding="utf-8")
