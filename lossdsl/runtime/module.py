"""The module that a compiled loss is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

from lossdsl.backends.code import Code
from lossdsl.checker.resolve import Recipe
from lossdsl.checker.signature import Signature
from lossdsl.checker.values import DrawSpec, LastingSpec, Program
from lossdsl.graph import nodes as n
from lossdsl.runtime.functions import sampled
from lossdsl.runtime.inputs import Binder, Bound, LossInputError
from lossdsl.types.domains import Kind


class CompiledLoss(nn.Module):
    """A loss as a torch module: call it with keyword tensors, train with its value.

    graph_module: the `torch.fx.GraphModule` that computes (values.., new states..) from all tensors.
    signature: inputs, hyperparameters, params, state, draws, with their types.
    properties: what the compiler derived.
    check_values: check indices and domains of inputs: True, False, or None for on the CPU only.

    In `eval()` mode the state is used but not changed. A loss of one sample (one that takes no mean) also accepts inputs with further leading
    axes, aligned from the right, and yields a value for each.
    """

    graph_module: fx.GraphModule

    def __init__(
        self,
        program: Program,
        code: Code,
        graph_module: fx.GraphModule,
        signature: Signature,
        properties: Any,
        recipe: Recipe,
        sizes: dict[str, int],
        initializers: dict[str, Any],
        formula: str,
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.signature = signature
        self.properties = properties
        self.recipe = recipe
        self.check_values: bool | None = None
        self.program = program
        self._formula = formula
        self._code = self.code = code
        self._sizes = dict(sizes)
        self._binder = Binder(program, sizes)
        self._initializers = initializers
        self._one_sample = takes_one_sample(program)
        self._variants: dict[tuple[tuple[str, int], ...], CompiledLoss] = {}
        self._follows_inputs = True
        self._lasting: dict[str, LastingSpec] = {s.name: s for s in program.lasting}
        for leaf in [*(s.leaf for s in program.lasting), *(d.leaf for d in program.draws)]:
            for dim in leaf.axes:  # looked up ahead of any call: torch.compile does not follow cached properties
                _ = dim.size.atom, dim.size.atoms, dim.size.constant
        for spec in program.lasting:
            if any(a.name not in self._sizes for d in spec.leaf.axes for a in d.size.atoms):
                self._set(spec.name, UninitializedBuffer() if spec.role == "state" else UninitializedParameter())
            else:
                self._set(spec.name, self._made(spec, self._sizes, torch.get_default_dtype(), torch.device("cpu")))

    # ---- what lasts ----

    def _holder(self, name: str) -> tuple[nn.Module, str]:
        """The module and key under which a lasting tensor of this dotted name lives."""
        *path, last = name.split(".")
        module: nn.Module = self
        for part in path:
            child = module._modules.get(part)
            if child is None:
                child = nn.Module()
                module._modules[part] = child
            module = child
        return module, last

    def _get(self, name: str) -> Tensor:
        module, key = self._holder(name)
        found = module._buffers.get(key) if self._lasting[name].role == "state" else module._parameters.get(key)
        assert found is not None
        return found

    def _set(self, name: str, value: Tensor) -> None:
        module, key = self._holder(name)
        if self._lasting[name].role == "state":
            module._buffers[key] = value
            module._non_persistent_buffers_set.discard(key)
        else:
            module._parameters[key] = value if isinstance(value, nn.Parameter) else nn.Parameter(value)

    def _materialize(self, sizes: dict[str, int], dtype: torch.dtype, device: torch.device) -> None:
        """Give first values to what lasts and whose lengths are known."""
        for name, spec in self._lasting.items():
            current = self._get(name)
            if not isinstance(current, UninitializedBuffer | UninitializedParameter):
                continue
            if any(a.name not in sizes for d in spec.leaf.axes for a in d.size.atoms):
                continue
            wanted = current.dtype if current.dtype != torch.get_default_dtype() else dtype
            self._set(name, self._made(spec, sizes, wanted, device))

    def _made(self, spec: LastingSpec, sizes: dict[str, int], dtype: torch.dtype, device: torch.device) -> Tensor:
        """A first value."""
        made: Tensor = self._initializers[spec.name](
            sizes, dtype if spec.leaf.kind is Kind.REAL else torch.int64, device
        )
        return made.bool() if spec.leaf.kind is Kind.BOOL else made

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self._lasting:
            saved = state_dict.get(prefix + name)
            if saved is not None and not isinstance(saved, UninitializedBuffer | UninitializedParameter):
                current = self._get(name)
                if isinstance(current, UninitializedBuffer | UninitializedParameter) or current.dtype != saved.dtype:
                    self._set(name, saved.detach().clone().to(current.device))
                self._follows_inputs = False
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _apply(self, fn: Any, recurse: bool = True) -> CompiledLoss:
        before = {name: self._get(name).dtype for name in self._lasting}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, old in before.items():
            current = self._get(name)
            if current.dtype != old:
                self._follows_inputs = False
                self._restate(name, current.to(old), current.dtype)
        return self

    def _follow(self, bound: Bound) -> None:
        """Before the first use, what lasts takes the dtype of the inputs where that is wider."""
        for name, spec in self._lasting.items():
            current = self._get(name)
            if spec.leaf.kind is not Kind.REAL or isinstance(current, UninitializedBuffer | UninitializedParameter):
                continue
            if torch.promote_types(current.dtype, bound.dtype) != current.dtype:
                old = current.detach().clone()
                current.data = current.detach().to(bound.dtype)
                self._restate(name, old, bound.dtype)

    def _restate(self, name: str, old: Tensor, dtype: torch.dtype) -> None:
        """A first value that was rounded to a narrow dtype is made again in a wider one: 0.1 is not float32's 0.1 in double."""
        spec = self._lasting[name]
        current = self._get(name)
        if (
            isinstance(current, UninitializedBuffer | UninitializedParameter)
            or spec.distribution is not None
            or not dtype.is_floating_point
        ):
            return
        sizes = {**_from_shape(spec, current), **self._sizes}
        made = self._initializers[name](sizes, dtype, current.device)
        if made.shape == current.shape and torch.equal(made.to(old.dtype), old):
            current.data = made

    # ---- calling ----

    def forward(self, *args: Any, generator: torch.Generator | None = None, **kwargs: Any) -> Any:
        """The value. Tensors by name (or position); a record is a mapping or an object with its fields.

        generator: for the program's draws that are not handed in. Raises LossInputError naming the argument at fault.
        """
        if self._one_sample:
            extra = self._binder.further_axes(args, kwargs)
            if extra:
                return self._lifted(extra)(*args, **kwargs)
        bound = self._binder.bind(args, kwargs, self.check_values)
        if self._lasting:
            if self._follows_inputs:
                self._follow(bound)
                self._follows_inputs = False
            self._materialize(bound.sizes, bound.dtype, bound.device)
            self._check_lasting(bound)
        arguments = [self._argument(name, bound, generator) for _, name in self._code.arguments]
        arguments += [bound.functions[name] for _, name in self._code.functions]
        if bound.device.type != "meta" and torch.is_autocast_enabled(bound.device.type):
            with torch.autocast(bound.device.type, enabled=False):
                results = self.graph_module(*arguments)
        else:
            results = self.graph_module(*arguments)
        count = len(results) - len(self._code.updates)
        if self.training:
            for name, new in zip(self._code.updates, results[count:], strict=True):
                self._update(name, new)
        return results[0] if count == 1 else tuple(results[:count])

    def _lifted(self, extra: tuple[tuple[str, int], ...]) -> CompiledLoss:
        """This loss on inputs with further leading axes."""
        self._has_variant(extra)
        variant = self._variants[extra]
        variant.check_values = self.check_values
        return variant

    @torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
    def _has_variant(self, extra: tuple[tuple[str, int], ...]) -> bool:
        """Build the variant once: outside of what torch.compile traces."""
        if extra not in self._variants:
            from lossdsl.runtime.build import lifted_variant

            self._variants[extra] = lifted_variant(self.recipe, dict(extra))
        return True

    def _check_lasting(self, bound: Bound) -> None:
        for name, spec in self._lasting.items():
            current = self._get(name)
            if isinstance(current, UninitializedBuffer | UninitializedParameter):
                unknown = [a.name for d in spec.leaf.axes for a in d.size.atoms if a.name not in bound.sizes]
                raise LossInputError(
                    f"nothing tells the length {unknown[0]} of {name}: {spec.type}; give it to the loader: lossdsl.load(.., {unknown[0]}=..)"
                )
            expected = [d.size.value({**_from_shape(spec, current), **bound.sizes}) for d in spec.leaf.axes]
            if list(current.shape) != expected:
                raise LossInputError(
                    f"{name}: {spec.type} has shape {list(current.shape)}, but the inputs need {expected}"
                )
            if current.device != bound.device:
                raise LossInputError(
                    f"{name} is on {current.device}, the inputs are on {bound.device}; move the loss with .to({str(bound.device)!r})"
                )
            bound.sizes.update({k: v for k, v in _from_shape(spec, current).items() if k not in bound.sizes})

    def _argument(self, name: str, bound: Bound, generator: torch.Generator | None) -> Tensor:
        if name in bound.tensors:
            return bound.tensors[name]
        if name in self._lasting:
            current = self._get(name)
            if self._lasting[name].leaf.kind is Kind.REAL and current.dtype != bound.dtype:
                return current.to(bound.dtype)
            return current.clone() if name in self._code.updates and self.training else current
        if name == "":
            return torch.zeros((), dtype=bound.dtype, device=bound.device)
        spec = next(d for d in self.program.draws if d.name == name)
        return draw(spec, self.program, bound, generator)

    def _update(self, name: str, new: Tensor) -> None:
        current = self._get(name)
        with torch.no_grad():
            current.copy_(new.detach())

    # ---- looking and keeping ----

    def __str__(self) -> str:
        return self._formula

    def extra_repr(self) -> str:
        return str(self.signature)

    def __repr__(self) -> str:
        return f"CompiledLoss({self.signature})"

    def __reduce__(self) -> tuple[Any, ...]:
        kept = {name: self._get(name) for name in self._lasting}
        plain = {k: v for k, v in kept.items() if not isinstance(v, UninitializedBuffer | UninitializedParameter)}
        grads = {k: v.requires_grad for k, v in plain.items()}
        flags = {"training": self.training, "check_values": self.check_values, "_follows_inputs": self._follows_inputs}
        return (_restore, (self.recipe, {k: v.detach() for k, v in plain.items()}, grads, flags))

    def __deepcopy__(self, memo: dict[int, Any]) -> CompiledLoss:
        rebuilt, (recipe, tensors, grads, flags) = self.__reduce__()
        copy: CompiledLoss = rebuilt(recipe, {k: v.clone() for k, v in tensors.items()}, grads, flags)
        memo[id(self)] = copy
        return copy


def takes_one_sample(program: Program) -> bool:
    """Is this a loss of one sample: plain inputs, nothing that lasts or is drawn, and no mean taken?"""
    if program.lasting or program.draws or program.functions or any(len(i.path) > 1 for i in program.inputs):
        return False
    return not any(isinstance(item, n.Reduce) and item.op == "mean" for item in n.topological(program.roots))


def _from_shape(spec: LastingSpec, current: Tensor) -> dict[str, int]:
    return {d.size.atom.name: current.shape[k] for k, d in enumerate(spec.leaf.axes) if d.size.atom is not None}


def _restore(recipe: Recipe, tensors: dict[str, Tensor], grads: dict[str, bool], flags: dict[str, Any]) -> CompiledLoss:
    from lossdsl.runtime.build import from_recipe

    module = from_recipe(recipe)
    for name, tensor in tensors.items():
        module._set(
            name, tensor if module._lasting[name].role == "state" else nn.Parameter(tensor, requires_grad=grads[name])
        )
    module.train(flags["training"])
    module.check_values = flags["check_values"]
    module._follows_inputs = flags["_follows_inputs"]
    return module


def draw(spec: DrawSpec, program: Program, bound: Bound, generator: torch.Generator | None) -> Tensor:
    """One sample of a random variable, in its shape."""
    unknown = [a.name for d in spec.leaf.axes for a in d.size.atoms if a.name not in bound.sizes]
    if unknown:
        raise LossInputError(
            f"nothing tells the length {unknown[0]} of {spec.name}: {spec.type}; hand it in, or give {unknown[0]}= to the loader"
        )
    shape = [d.size.value(bound.sizes) for d in spec.leaf.axes]
    numbers = [program.graph.static(a) for a in spec.arguments]
    values = [float(x) for x in numbers if x is not None]
    sample = sampled(spec.distribution, values, shape, bound.dtype, bound.device, generator)
    return sample.long() if spec.leaf.kind is Kind.INT else sample.bool() if spec.leaf.kind is Kind.BOOL else sample
