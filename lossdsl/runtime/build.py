"""From a resolved function to a `CompiledLoss`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lossdsl.backends.fx import emit_fx
from lossdsl.backends.lengths import UnknownSize
from lossdsl.backends.lower import lower
from lossdsl.checker.properties import derive
from lossdsl.checker.resolve import Recipe, Resolved, build, lifted, rebuild
from lossdsl.checker.signature import signature
from lossdsl.checker.values import LastingSpec, Program
from lossdsl.checker.values import Tensor as Value
from lossdsl.graph.build import GraphTooLarge
from lossdsl.graph.rewrite import rewritten
from lossdsl.runtime.functions import sampled
from lossdsl.runtime.module import CompiledLoss
from lossdsl.syntax.ast import deep_recursion
from lossdsl.syntax.diagnostics import Diagnostic, LossError


def compiled(resolved: Resolved, options: Mapping[str, Any], rewrites: bool = True) -> CompiledLoss:
    """Check, rewrite, lower and wrap. Raises LossError."""
    program = build(resolved, options)
    return assemble(program, replace(resolved.recipe, options=dict(options)), rewrites)


def from_recipe(recipe: Recipe) -> CompiledLoss:
    """Build a loss again, as unpickling does."""
    return assemble(build(rebuild(recipe), recipe.options), recipe, True)


def lifted_variant(recipe: Recipe, extra: Mapping[str, int]) -> CompiledLoss:
    """The loss of a recipe on inputs with further leading axes."""
    return assemble(build(lifted(rebuild(recipe), extra), recipe.options), recipe, True)


def assemble(program: Program, recipe: Recipe, rewrites: bool) -> CompiledLoss:
    """The module of a checked program."""
    sizes = {name: int(value) for name, value in recipe.options.items() if name[:1].isupper()}
    _check_names(program)
    described = signature(program)
    properties = derive(program)
    with deep_recursion():
        final = rewritten(program) if rewrites else program
    try:
        with deep_recursion():
            code = lower(final, sizes)
    except (RecursionError, GraphTooLarge):
        raise LossError(
            [
                Diagnostic(
                    "E060", f"{program.name} unfolds to more than a compiler should handle", program.function.name_span
                )
            ]
        ) from None
    except UnknownSize as error:
        raise LossError([Diagnostic("E061", f"nothing tells the length {error.name}", program.function.name_span,
                                    help=f"give it to the loader: lossdsl.load(.., {error.name}=..)")]) from None  # fmt: skip
    module = emit_fx(code, program.name)
    initializers = {spec.name: _initializer(program, spec) for spec in program.lasting}
    return CompiledLoss(final, code, module, described, properties, recipe, sizes, initializers, formula_of(program))


_OWN = ("graph_module", "signature", "properties", "recipe", "program", "code", "training", "check_values")


def _check_names(program: Program) -> None:
    """What lasts is kept under its own name, so it cannot be called like what every module has."""
    for spec in program.lasting:
        head = spec.name.split(".")[0]
        if hasattr(CompiledLoss, head) or head in _OWN:
            message = f"{head} is a name that every torch module has, so no {spec.role} can be called so"
            raise LossError([Diagnostic("E011", message, program.function.name_span, help=f"call it my_{head}")])


def formula_of(program: Program) -> str:
    """The text of the function as the user wrote it."""
    span = program.function.span
    return re.sub(r"\s+\Z", "", span.text)


def _initializer(program: Program, spec: LastingSpec) -> Callable[[dict[str, int], torch.dtype, torch.device], Tensor]:
    def make(sizes: dict[str, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        shape = [d.size.value(sizes) for d in spec.leaf.axes]
        if spec.distribution is not None:
            numbers = [program.graph.static(a) for a in spec.arguments]
            return sampled(spec.distribution, [float(x) for x in numbers if x is not None], shape, dtype, device)
        assert spec.initial is not None
        alone = Program(
            program.name, program.module, program.function, program.graph, program.ranges, hypers=program.hypers
        )
        alone.values = (Value(spec.initial, spec.leaf.axes),)
        code = lower(alone, sizes)
        like = torch.zeros((), dtype=dtype if dtype.is_floating_point else torch.float64, device=device)
        with torch.no_grad():
            found = emit_fx(code, spec.name)(like)[0]
        return found.to(dtype).expand(shape).contiguous().clone()  # type: ignore[no-any-return]

    return make
