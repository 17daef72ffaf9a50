"""Linear code to a self-contained Python module: `emit_python(loss)`. The file needs only torch."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Collection
from typing import TYPE_CHECKING

from lossdsl.backends.code import Code, HyperRef, Reg
from lossdsl.backends.lower import lower
from lossdsl.backends.printer import Printer, attribute_name, check_source, safe_name
from lossdsl.checker.catalog import provenance
from lossdsl.checker.values import LastingSpec, Program
from lossdsl.checker.values import Tensor as Value
from lossdsl.graph.nodes import Leaf
from lossdsl.runtime import emitted
from lossdsl.runtime import functions as rt
from lossdsl.types.domains import Kind

if TYPE_CHECKING:
    from lossdsl.runtime.module import CompiledLoss


def emit_python(loss: CompiledLoss, *, target: str = "cpu", required: Collection[str] = ()) -> str:
    """The source of a module with one class, named after the loss.

    Hyperparameters are keyword arguments of its constructor, except those that shaped the code; lengths of what lasts that no option
    fixes are too. target: the device on which state and params are made. required: hyperparameters whose built value is only a
    stand-in, so that the constructor asks for them. Raises ValueError where one of these shaped the code.
    """
    shaping = [name for name in required if name in loss.program.graph.baked]
    if shaping:
        raise ValueError(f"{shaping[0]} shapes the code, so its value must be given")
    return _Writer(loss.program, loss.code, dict(loss.recipe.options), target, required).source()


class _Writer:
    def __init__(
        self, program: Program, code: Code, options: dict[str, float | int], target: str, required: Collection[str] = ()
    ) -> None:
        self.program = program
        self.required = frozenset(required)
        self.code = code
        self.target = target
        self.sizes = {k: int(v) for k, v in options.items() if k[:1].isupper()}
        self.baked = {h.name for h in program.hypers if h.name in program.graph.baked}
        self.free = [h for h in program.hypers if h.name not in self.baked]
        self.printer = Printer(self._hyper)
        self.extra: set[str] = {"precision", "check_axes"}
        self.regs = {name: reg for reg, name in code.arguments}
        self.inputs = list(dict.fromkeys(i.path[0] for i in program.inputs))
        self.draws = [d.name for d in program.draws]
        names = (*self.inputs, *(f.name for f in program.functions), *self.draws)
        self.parameters = {name: safe_name(name, emitted.__all__) for name in names}
        self.printer.reserve([*self.parameters.values(), *emitted.__all__])

    def _hyper(self, ref: HyperRef) -> str:
        return repr(ref.value) if ref.name in self.baked else f"self.{attribute_name(ref.name)}"

    # ---- the file ----

    def source(self) -> str:
        forward = self._forward()
        init = self._init()
        name = _camel(self.program.name)
        body = "\n".join([*forward, *init, *self.printer.classes, *self._helpers()])
        parts = [self._docstring(), "", "from __future__ import annotations", "", *_imports(body), ""]
        for helper in self._helpers():
            parts += ["", helper, ""]
        for made in self.printer.classes:
            parts += ["", made, ""]
        parts += ["", f"class {name}(nn.Module):", *self._class_docstring(), "", *init, "", *forward, ""]
        text = re.sub(r"\n{4,}", "\n\n\n", "\n".join(parts))
        check_source(text)
        return text

    def _docstring(self) -> str:
        known = provenance(self.program.module.tree.doc)
        head = (self.program.function.doc or self.program.module.tree.doc or self.program.name).strip()
        lines = [*textwrap.dedent(head).splitlines(), ""]
        lines += [f"{key}: {value}" for key, value in known.items() if key in ("title", "authors", "year", "arxiv")]
        formula = self.program.function.span.text.rstrip().splitlines()
        lines += ["", "Made from this program; it needs only torch:", "", *(f"    {line}" for line in formula)]
        return '"""' + _quoted("\n".join(lines)).rstrip() + '\n"""'

    def _class_docstring(self) -> list[str]:
        lines = ['    """' + _quoted(str(_signature_line(self.program)))]
        if not self.baked:
            return [lines[0] + '"""']
        if self.baked:
            fixed = ", ".join(f"{h.name} = {h.value}" for h in self.program.hypers if h.name in self.baked)
            lines.append(f"\n    Fixed when this file was made, because they shaped the code: {fixed}.")
        return [*lines, '    """']

    def _helpers(self) -> list[str]:
        wanted = set(self.printer.helpers)
        texts: dict[str, str] = {}
        queue = [*sorted(self.extra), *sorted(wanted)]
        while queue:
            name = queue.pop(0)
            if name in texts:
                continue
            home = emitted if hasattr(emitted, name) and name in emitted.__all__ else rt
            texts[name] = inspect.getsource(getattr(home, name)).rstrip()
            for other in re.findall(r"\b[a-z_]\w*(?=\()", texts[name]):
                function = getattr(rt, other, None)
                if inspect.isfunction(function) and function.__module__ == rt.__name__ and other not in texts:
                    queue.append(other)
        return [texts[name] for name in sorted(texts)]

    # ---- the constructor ----

    def _init(self) -> list[str]:
        lengths = self._constructor_lengths()
        arguments = [f"{safe_name(n)}: int" for n in lengths]
        kinds = {h.name: "int" if h.kind is Kind.INT else "float" for h in self.free}
        arguments += [f"{safe_name(h.name)}: {kinds[h.name]}" for h in self.free if h.name in self.required]
        arguments += [
            f"{safe_name(h.name)}: {kinds[h.name]} = {h.value!r}" for h in self.free if h.name not in self.required
        ]
        star = ", ".join(["self", *arguments])
        lines = [
            f"    def __init__({star}) -> None:" if arguments else "    def __init__(self) -> None:",
            "        super().__init__()",
        ]
        lines += [f"        self.{attribute_name(h.name)} = {safe_name(h.name)}" for h in self.free]
        for holder in dict.fromkeys(self._path(s)[:-1] for s in self.program.lasting):
            for depth in range(1, len(holder) + 1):
                line = f"        self.{'.'.join(holder[:depth])} = nn.Module()"
                if line not in lines:
                    lines.append(line)
        for spec in self.program.lasting:
            lines += self._initial(spec)
        return lines

    def _constructor_lengths(self) -> list[str]:
        names: dict[str, None] = {}
        for spec in self.program.lasting:
            for dim in spec.leaf.axes:
                names.update(dict.fromkeys(a.name for a in sorted(dim.size.atoms) if a.name not in self.sizes))
        return list(names)

    def _path(self, spec: LastingSpec) -> tuple[str, ...]:
        return tuple(attribute_name(p) for p in spec.name.split("."))

    def _initial(self, spec: LastingSpec) -> list[str]:
        def hyper(ref: HyperRef) -> str:
            return repr(ref.value) if ref.name in self.baked else safe_name(ref.name)

        program = self.program
        printer = Printer(hyper, helpers=self.printer.helpers)
        *holder, last = self._path(spec)
        owner = ".".join(["self", *holder])
        whole = {Kind.INT: "torch.int64", Kind.BOOL: "torch.bool"}.get(spec.leaf.kind, "torch.get_default_dtype()")
        sizes = dict(self.sizes) | {name: HyperRef(name, 1) for name in self._constructor_lengths()}
        if spec.distribution is not None:
            printer.helpers.add("sampled")
            numbers = [float(x) for x in (program.graph.static(a) for a in spec.arguments) if x is not None]
            shape = ", ".join(_length(d, self.sizes) for d in spec.leaf.axes)
            value = f'sampled("{spec.distribution}", {numbers}, [{shape}], {whole}, torch.device("{self.target}"))'
            lines: list[str] = []
        else:
            alone = Program(
                program.name, program.module, program.function, program.graph, program.ranges, hypers=program.hypers
            )
            assert spec.initial is not None
            alone.values = (Value(spec.initial, spec.leaf.axes),)
            code = lower(alone, sizes)
            printer.names[code.arguments[0][0]] = "like"
            printer.body(code.block, code.results)
            lines = [
                f'        like = torch.zeros((), device="{self.target}")',
                *(f"        {line}" for line in printer.lines),
            ]
            value = f"{printer.text(code.results[0])}.to({whole}).clone()"
            if not any("like" in line for line in [*lines[1:], value]):
                lines = lines[1:]
        if spec.role == "state":
            return [*lines, f'        {owner}.register_buffer("{last}", {value})']
        return [*lines, f"        {owner}.{last} = nn.Parameter({value})"]

    # ---- the call ----

    def _forward(self) -> list[str]:
        program, printer = self.program, self.printer
        lines: list[str] = []
        names: dict[str, str] = {}
        for spec in program.inputs:
            reg = self.regs[spec.name]
            names[spec.name] = self._own(reg, spec.path)
        for reg, name in self.code.functions:
            printer.names[reg] = self.parameters[name]
        for draw in program.draws:
            names[draw.name] = self._own(self.regs[draw.name], (draw.name,))
        lasting = {s.name: printer.name(self.regs[s.name], s.name.replace(".", "_")) for s in program.lasting}
        lines += self._take_inputs(names)
        lines += self._take_lasting(lasting)
        if "" in self.regs:
            lines.append(f"{printer.name(self.regs[''], 'like')} = torch.zeros((), dtype=dtype, device=device)")
        printer.body(self.code.block, self.code.results)
        count = len(self.code.results) - len(self.code.updates)
        results = [printer.text(r) for r in self.code.results]
        body = list(printer.lines)
        if self.code.updates:
            body.append("if self.training:")
            body.append("    with torch.no_grad():")
            for name, new in zip(self.code.updates, results[count:], strict=True):
                kept = next(s for s in program.lasting if s.name == name)
                body.append(f"        self.{'.'.join(self._path(kept))}.copy_({new})")
        body.append(f"return {', '.join(results[:count])}")
        tail = [f"{self.parameters[d]}: Any = None" for d in self.draws]
        if self.draws:
            tail = ["*", *tail, "generator: Any = None"]
        head = f"    def forward({', '.join(['self', *self._ordered(), *tail])}) -> Any:"
        doc = "; ".join(f"{i.name}: {i.type}" for i in program.inputs)
        lines.append("with torch.autocast(device.type, enabled=False):")
        return [
            head,
            *textwrap.wrap(
                f'"""The value. {_quoted(doc)}"""',
                96,
                initial_indent=" " * 8,
                subsequent_indent=" " * 8,
                break_long_words=False,
            ),
            *(f"        {line}" for line in lines),
            *(f"            {line}" for line in body),
        ]

    def _own(self, reg: Reg, path: tuple[str, ...]) -> str:
        """The variable of an input: its parameter's name; a record's field has one of its own."""
        if len(path) == 1:
            self.printer.names[reg] = self.parameters[path[0]]
            return self.parameters[path[0]]
        return self.printer.name(reg, "_".join(path))

    def _ordered(self) -> list[str]:
        order = [p.name for p in self.program.function.parameters if p.name in self.parameters]
        return [f"{self.parameters[name]}: Any" for name in order]

    def _take_inputs(self, names: dict[str, str]) -> list[str]:
        program = self.program
        lines: list[str] = []
        for spec in program.inputs:
            if len(spec.path) > 1:
                self.extra.add("field")
                lines.append(f'{names[spec.name]} = field({self.parameters[spec.path[0]]}, "{spec.path[1]}")')
            elif names[spec.name] != self.parameters[spec.path[0]]:
                lines.append(f"{names[spec.name]} = {self.parameters[spec.path[0]]}")
        given = [names[i.name] for i in program.inputs]
        lines.append(f"dtype, device = precision({', '.join(given)})")
        lines += [f"{names[spec.name]} = {_converted(names[spec.name], spec.leaf)}" for spec in program.inputs]
        lines += self._checks(names)
        for draw in program.draws:
            self.printer.helpers.add("sampled")
            numbers = [float(x) for x in (program.graph.static(a) for a in draw.arguments) if x is not None]
            shape = ", ".join(self._shape_of(d, names) for d in draw.leaf.axes)
            name = names[draw.name]
            lines.append(f"if {self.parameters[draw.name]} is None:")
            lines.append(f'    {name} = sampled("{draw.distribution}", {numbers}, [{shape}], dtype, device, generator)')
            lines.append("else:")
            lines.append(f"    {name} = {_converted(self.parameters[draw.name], draw.leaf)}")
        return lines

    def _checks(self, names: dict[str, str]) -> list[str]:
        """Axes of one name have one length; whole numbers lie in their range."""
        axes: dict[str, list[str]] = {}
        for spec in self.program.inputs:
            for place, dim in enumerate(spec.leaf.axes):
                if dim.size.atom is not None:
                    axes.setdefault(dim.size.atom.name, []).append(f'"{spec.name}": {names[spec.name]}.shape[{place}]')
        lines = [f'check_axes("{axis}", {{{", ".join(places)}}})' for axis, places in axes.items() if len(places) > 1]
        for spec in self.program.inputs:
            leaf = spec.leaf
            if leaf.kind is not Kind.INT or leaf.domain.low == float("-inf"):
                continue
            high = None if leaf.domain.high == float("inf") else str(int(leaf.domain.high) + 1)
            if leaf.below is not None and leaf.below.atom is not None:
                axis = leaf.below.atom.name
                high = (
                    axes[axis][0].split(": ", 1)[1]
                    if axis in axes
                    else str(self.sizes[axis])
                    if axis in self.sizes
                    else high
                )
            self.extra.add("check_range")
            lines.append(f'check_range("{spec.name}", {names[spec.name]}, {int(leaf.domain.low)}, {high})')
        if not any("check_axes" in line for line in lines):
            self.extra.discard("check_axes")
        return lines

    def _shape_of(self, dim: object, names: dict[str, str]) -> str:
        from lossdsl.graph.nodes import Dim

        assert isinstance(dim, Dim)
        if dim.size.constant is not None:
            return str(dim.size.constant)
        for spec in self.program.inputs:
            for place, axis in enumerate(spec.leaf.axes):
                if axis.size == dim.size:
                    return f"{names[spec.name]}.shape[{place}]"
        return _length(dim, self.sizes)

    def _take_lasting(self, lasting: dict[str, str]) -> list[str]:
        lines = []
        for spec in self.program.lasting:
            place = f"self.{'.'.join(self._path(spec))}"
            cast = ".to(dtype)" if spec.leaf.kind is Kind.REAL else ""
            kept = ".clone()" if spec.name in self.code.updates else ""
            lines.append(f"{lasting[spec.name]} = {place}{cast}{kept}")
        return lines


def _imports(body: str) -> list[str]:
    lines = ["import math"] if re.search(r"\bmath\.", body) else []
    lines += ["from typing import Any", "", "import torch"]
    if re.search(r"\bF\.", body):
        lines.append("import torch.nn.functional as F")
    return [*lines, "from torch import Tensor, nn" if re.search(r"\bTensor\b", body) else "from torch import nn"]


def _converted(name: str, leaf: Leaf) -> str:
    match leaf.kind:
        case Kind.REAL:
            return f"{name}.to(dtype)" if leaf.axes else f"torch.as_tensor({name}, dtype=dtype, device=device)"
        case Kind.INT:
            return f"{name}.long()" if leaf.axes else f"torch.as_tensor({name}, dtype=torch.int64, device=device)"
        case _:
            return f"{name} != 0" if leaf.axes else f"torch.as_tensor({name}, device=device) != 0"


def _length(dim: object, sizes: dict[str, int]) -> str:
    from lossdsl.graph.nodes import Dim

    assert isinstance(dim, Dim)
    text = str(dim.size)
    return re.sub(r"[A-Za-z_]\w*", lambda m: str(sizes.get(m.group(), safe_name(m.group()))), text)


def _camel(name: str) -> str:
    text = "".join(part[:1].upper() + part[1:] for part in name.split("_") if part) or "Loss"
    return safe_name(text if not text[0].isdigit() else f"Loss{text}")


def _quoted(text: str) -> str:
    """Text that cannot leave a docstring."""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"').replace("\x00", "")


def _signature_line(program: Program) -> str:
    return f"The loss {program.name} as a torch module."
