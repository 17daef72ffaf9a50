"""From what a user names to a checked program: a library name, a file, `file.loss:name`, source text, an expression."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lossdsl.checker import reads
from lossdsl.checker.binders import BINDERS
from lossdsl.checker.calls import builtin_names
from lossdsl.checker.expressions import CONSTANTS
from lossdsl.checker.modules import Library, building_blocks, module_names
from lossdsl.checker.program import elaborate
from lossdsl.checker.types import is_axis_name
from lossdsl.checker.values import LoadedModule, Program
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Diagnostics, LossError, suggest
from lossdsl.syntax.parser import parse_expression
from lossdsl.syntax.source import Source, Span


@dataclass(frozen=True)
class Recipe:
    """All that is needed to build a loss again: where its text came from, the texts, and the options.

    kind: "module" (text is a program, name its loss) or "expression". sources: texts of used files by the names that `use` looks for.
    """

    kind: str
    title: str
    text: str
    name: str
    options: dict[str, float | int]
    sources: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Resolved:
    """A function found, with what it takes to check it."""

    module: LoadedModule
    function: ast.Function
    library: Library
    recipe: Recipe


def resolve(target: str | Path) -> Resolved:
    """Find what `lossdsl.load` names. Raises LossError where there is none."""
    diagnostics = Diagnostics()
    library = Library(diagnostics)
    text = str(target)
    head, name = _split(text)
    if head.endswith(".loss") or "/" in head or isinstance(target, Path):
        module = library.file(Path(head))
    else:
        module, name = _named(library, head, name, diagnostics)
    diagnostics.raise_if_errors()
    if module is None:
        raise LossError(diagnostics.found)
    function = _choose(module, name, diagnostics)
    return Resolved(
        module,
        function,
        library,
        Recipe("module", module.name, module.tree.source.text, function.name, {}, library.sources),
    )


def _split(text: str) -> tuple[str, str | None]:
    match = re.fullmatch(r"(.+?)(?::([A-Za-z_]\w*))?", text, re.DOTALL)
    return (match.group(1), match.group(2)) if match else (text, None)


def _named(
    library: Library, head: str, name: str | None, diagnostics: Diagnostics
) -> tuple[LoadedModule | None, str | None]:
    """A paper's slug, a building block, or a family (then with a name)."""
    if re.fullmatch(r"[A-Za-z_][\w.]*", head):
        parts = tuple(head.split("."))
        paper = library.stdlib(("papers", *parts))
        if paper is not None or diagnostics.errors:
            return paper, name
        home = building_blocks().get(head)
        if home is not None and name is None:
            return library.stdlib((home,)), head
        family = library.stdlib(parts)
        if family is not None:
            return family, name
    known = [*(m.removeprefix("papers.") for m in module_names()), *building_blocks()]
    near = suggest(head, known)
    diagnostics.report("E014", f"the standard library has no {head}", None,
                       help=f"did you mean {near}?" if near else "lossdsl list shows what there is; a file's name ends in .loss")  # fmt: skip
    return None, None


def _choose(module: LoadedModule, name: str | None, diagnostics: Diagnostics) -> ast.Function:
    functions = {f.name: f for f in module.tree.functions}
    if name is None:
        if not module.tree.losses:
            diagnostics.report(
                "E014", f"{module.name} declares no loss", None, help="a loss begins with `loss name(..):`"
            )
            raise LossError(diagnostics.found)
        return module.tree.losses[0]
    if name not in functions:
        near = suggest(name, functions)
        diagnostics.report("E014", f"{module.name} has no {name}", None,
                           help=f"did you mean {near}?" if near else f"it has {', '.join(functions) or 'nothing'}")  # fmt: skip
        raise LossError(diagnostics.found)
    return functions[name]


def from_text(text: str, name: str | None = None, title: str = "<text>", folder: Path | None = None) -> Resolved:
    """A program's text, or a lone expression."""
    diagnostics = Diagnostics()
    library = Library(diagnostics)
    if is_program(text):
        module = library.text(title, text, folder)
        diagnostics.raise_if_errors()
        if module is None:
            raise LossError(diagnostics.found)
        function = _choose(module, name, diagnostics)
        return Resolved(module, function, library, Recipe("module", title, text, function.name, {}, library.sources))
    return _expression(text, library, diagnostics)


def is_program(text: str) -> bool:
    """Does a text declare something? Otherwise it is an expression."""
    return re.search(r"^(loss|def|record|use)\b", text, re.MULTILINE) is not None


def rebuild(recipe: Recipe) -> Resolved:
    """The same function from a recipe, without reading any file but the library's own."""
    diagnostics = Diagnostics()
    library = Library(diagnostics, given=dict(recipe.sources))
    if recipe.kind == "expression":
        return _expression(recipe.text, library, diagnostics)
    module = library.text(recipe.title, recipe.text)
    diagnostics.raise_if_errors()
    if module is None:
        raise LossError(diagnostics.found)
    return Resolved(module, _choose(module, recipe.name, diagnostics), library, recipe)


# ---- building with values ------------------------------------------------------------------


def build(resolved: Resolved, options: Mapping[str, Any]) -> Program:
    """The program with its hyperparameters (lower case) and lengths (capitalised) fixed. Raises LossError."""
    diagnostics = resolved.library.diagnostics
    hypers: dict[str, float | int] = {}
    sizes: dict[str, int] = {}
    declared = {p.name for p in resolved.function.hyperparameters}
    for name, value in options.items():
        number = _plain_number(value)
        if number is None:
            diagnostics.report(
                "E041",
                f"{name} must be a number within 64 bits, not {type(value).__name__}",
                None,
                help="tensors are given when the loss is called",
            )
        elif is_axis_name(name):
            if not isinstance(number, int) or isinstance(number, bool) or number < 0:
                diagnostics.report("E041", f"the length {name} must be a whole number, not {value!r}", None)
            else:
                sizes[name] = number
        elif name in declared:
            hypers[name] = number
        else:
            near = suggest(name, declared)
            diagnostics.report("E041", f"{resolved.function.name} has no hyperparameter {name}", None,
                               help=f"did you mean {near}?" if near else f"it has {', '.join(sorted(declared)) or 'none'}")  # fmt: skip
    diagnostics.raise_if_errors()
    program = elaborate(resolved.module, resolved.function, resolved.library.prelude(), diagnostics, hypers, sizes)
    diagnostics.raise_if_errors()
    if program is None:
        raise LossError(diagnostics.found)
    for name in sizes:
        if name not in program.axis_names:
            near = suggest(name, program.axis_names)
            diagnostics.report("E041", f"{program.name} has no axis {name}", None,
                               help=f"did you mean {near}?" if near else f"its axes: {', '.join(sorted(program.axis_names)) or 'none'}")  # fmt: skip
    diagnostics.raise_if_errors()
    return program


def _plain_number(value: Any) -> float | int | None:
    if isinstance(value, bool | int | float):
        return None if isinstance(value, int) and abs(value) > 2**62 else value
    item = getattr(value, "item", None)
    if item is not None and getattr(value, "ndim", 1) == 0:
        found = item()
        return found if isinstance(found, bool | int | float) else None
    return None


def lifted(resolved: Resolved, extra: Mapping[str, int]) -> Resolved:
    """The same function on tensors with further leading axes: `extra` says how many each parameter has.

    The further axes of two parameters are one where they stand equally far from the core axes.
    """
    function = resolved.function
    span = function.span
    names = [f"Lifted{k}" for k in range(max(extra.values()), 0, -1)]
    parameters = []
    for parameter in function.parameters:
        kind = parameter.type
        assert isinstance(kind, ast.ArrayType)
        count = extra.get(parameter.name, 0)
        lead = tuple(ast.Axis(ast.Name(name, span=span), span=span) for name in names[len(names) - count :])
        parameters.append(
            ast.Parameter(parameter.name, replace(kind, axes=(*lead, *kind.axes)), None, span=parameter.span)
        )
    given = [ast.Argument(None, ast.Name(p.name, span=span), span=span) for p in parameters]
    given += [ast.Argument(h.name, ast.Name(h.name, span=span), span=span) for h in function.hyperparameters]
    call = ast.Call(ast.Name(function.name, span=span), tuple(given), span=span)
    outer = ast.Function(
        "def", f"lifted_{function.name}", tuple(parameters), function.hyperparameters, None, function.doc,
        (ast.Value((call,), span=span),), span=span, name_span=function.name_span,
    )  # fmt: skip
    module = LoadedModule(
        "<lifted>", resolved.module.tree, dict(resolved.module.records), dict(resolved.module.functions)
    )
    module.functions[function.name] = (resolved.module, function)
    return replace(resolved, module=module, function=outer)


# ---- expressions ---------------------------------------------------------------------------


def _expression(text: str, library: Library, diagnostics: Diagnostics) -> Resolved:
    source = Source("<expression>", text)
    library.sources["<expression>"] = text
    expr = parse_expression(source, diagnostics)
    diagnostics.raise_if_errors()
    if expr is None:
        raise LossError(diagnostics.found)
    module, function = _as_loss(expr, source, library, diagnostics)
    diagnostics.raise_if_errors()
    return Resolved(
        module, function, library, Recipe("expression", "<expression>", text, function.name, {}, library.sources)
    )


def _as_loss(
    expr: ast.Expr, source: Source, library: Library, diagnostics: Diagnostics
) -> tuple[LoadedModule, ast.Function]:
    """A loss whose parameters are the free names of an expression."""
    span = Span(source, 0, len(source.text))
    module = LoadedModule("<expression>", ast.Module(source, None, (), (), (), span=span))
    _bring_functions(expr, module, library)
    types: dict[str, ast.Type] = {}
    for call in (e for e in reads.walk(expr) if isinstance(e, ast.Call)):
        _types_from_call(call, module, types)
    _over_further_axes(expr, types)
    bound = _bound_names(expr)
    hypers: list[ast.Parameter] = []
    called = {id(c.function) for c in reads.walk(expr) if isinstance(c, ast.Call)}
    heads = {
        id(f.base)
        for f in (c.function for c in reads.walk(expr) if isinstance(c, ast.Call))
        if isinstance(f, ast.Bracket)
    }
    binders = {
        id(e.value)
        for c in reads.walk(expr)
        if isinstance(c, ast.Call) and isinstance(c.function, ast.Bracket)
        for e in c.function.entries
        if isinstance(e, ast.Index)
    }
    for item in reads.walk(expr):
        if not isinstance(item, ast.Name) or id(item) in called | heads | binders:
            continue
        name = item.id
        if (
            name in types
            or name in bound
            or is_axis_name(name)
            or name in CONSTANTS
            or any(h.name == name for h in hypers)
        ):
            continue
        if name in module.functions or name in builtin_names():
            continue
        written = Span(Source("<expression>", "real"), 0, 4)
        hypers.append(ast.Parameter(name, ast.ArrayType("real", (), span=written), None, span=item.span))
    del diagnostics
    parameters = tuple(ast.Parameter(name, kind, None, span=span) for name, kind in types.items())
    function = ast.Function(
        "loss",
        _loss_name(expr),
        parameters,
        tuple(hypers),
        None,
        source.text.strip(),
        (ast.Value((expr,), span=span),),
        span=span,
        name_span=span,
    )
    return module, function


def _over_further_axes(expr: ast.Expr, types: dict[str, ast.Type]) -> None:
    """`mean[N](cross_entropy(logits, labels))`: an axis that no parameter declares leads every input."""
    declared = {
        a.size.id
        for kind in types.values()
        if isinstance(kind, ast.ArrayType)
        for a in kind.axes
        if isinstance(a.size, ast.Name)
    }
    further: dict[str, ast.Axis] = {}
    for call in reads.walk(expr):
        if isinstance(call, ast.Call) and isinstance(call.function, ast.Bracket):
            for entry in call.function.entries:
                match entry:
                    case ast.Index(ast.Name(name)) if is_axis_name(name) and name not in declared:
                        further.setdefault(name, ast.Axis(entry.value, span=entry.span))
                    case _:
                        pass
    for name, kind in types.items():
        if isinstance(kind, ast.ArrayType) and further:
            types[name] = replace(kind, axes=(*further.values(), *kind.axes))


def _loss_name(expr: ast.Expr) -> str:
    names = [c.function.id for c in reads.walk(expr) if isinstance(c, ast.Call) and isinstance(c.function, ast.Name)]
    return "_".join(dict.fromkeys(names))[:40] or "expression"


def _bound_names(expr: ast.Expr) -> set[str]:
    found: set[str] = set()
    for item in reads.walk(expr):
        if isinstance(item, ast.Call) and isinstance(item.function, ast.Bracket):
            for entry in item.function.entries:
                match entry:
                    case ast.Index(ast.Name(name)) | ast.Slice(ast.Name(name)):
                        found.add(name)
                    case _:
                        pass
    return found


def _bring_functions(expr: ast.Expr, module: LoadedModule, library: Library) -> None:
    blocks = building_blocks()
    for item in reads.walk(expr):
        if not isinstance(item, ast.Call):
            continue
        head = item.function.base if isinstance(item.function, ast.Bracket) else item.function
        if not isinstance(head, ast.Name) or head.id in module.functions or head.id in BINDERS:
            continue
        found = (
            library.stdlib((blocks[head.id],))
            if head.id in blocks
            else library.stdlib(("papers", head.id))
            if re.fullmatch(r"\w+", head.id)
            else None
        )
        if found is None or head.id not in found.functions:
            continue
        module.functions[head.id] = found.functions[head.id]
        for name, record in found.records.items():
            module.records.setdefault(name, record)


def _types_from_call(call: ast.Call, module: LoadedModule, types: dict[str, ast.Type]) -> None:
    head = call.function.base if isinstance(call.function, ast.Bracket) else call.function
    if not isinstance(head, ast.Name) or head.id not in module.functions:
        return
    home, function = module.functions[head.id]
    names = [p.name for p in function.parameters]
    for place, argument in enumerate(call.arguments):
        value = argument.value
        while isinstance(value, ast.Group | ast.Negative):
            value = value.inner if isinstance(value, ast.Group) else value.operand
        if not isinstance(value, ast.Name):
            continue
        name = argument.name if argument.name is not None else names[place] if place < len(names) else None
        parameter = next((p for p in function.parameters if p.name == name), None)
        if parameter is None or value.id in types:
            continue
        types[value.id] = parameter.type
        if isinstance(parameter.type, ast.ArrayType) and parameter.type.kind in home.records:
            module.records.setdefault(parameter.type.kind, home.records[parameter.type.kind])
