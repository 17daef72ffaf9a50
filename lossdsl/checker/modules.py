"""Finding and loading programs: a file, what it uses, and the standard library.

`use` names are looked for beside the using file and in the standard library, nowhere else; names are identifiers, so no
path can be built from them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path

from lossdsl.checker.sound import Looked, absolute, state
from lossdsl.checker.values import LoadedModule
from lossdsl.resources import stdlib_root
from lossdsl.syntax import ast
from lossdsl.syntax.diagnostics import Diagnostics, suggest
from lossdsl.syntax.source import MAX_TEXT, Source, Span
from lossdsl.syntax.trees import sound_tree

PRELUDE = "prelude"
MAX_MODULES = 200


@lru_cache(maxsize=512)
def _sound(name: str, text: str) -> ast.Module | None:
    """The tree of a text without mistakes, which a process parses once: most loads use the same few library files."""
    return sound_tree(name, text)


def _reported(source: Source, diagnostics: Diagnostics) -> ast.Module | None:
    from lossdsl.syntax.parser import parse

    return parse(source, diagnostics)


@dataclass
class Library:
    """Loads modules, each once.

    `sources` holds the text of everything loaded, by module name; `looked` the state of every file that was looked for.
    """

    diagnostics: Diagnostics
    given: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    looked: Looked = field(default_factory=dict)
    _loaded: dict[Path | str, LoadedModule | None] = field(default_factory=dict)
    _loading: list[Path | str] = field(default_factory=list)

    def file(self, path: Path) -> LoadedModule | None:
        """The module in a file."""
        text = self._read(path)
        return None if text is None else self._module(str(path), text, path.resolve(), path.parent)

    def text(self, name: str, text: str, folder: Path | None = None) -> LoadedModule | None:
        """A module given as text; `folder` is where its `use` lines look first."""
        return self._module(name, text, f"<{name}>", folder)

    def stdlib(self, dotted: tuple[str, ...]) -> LoadedModule | None:
        """A module of the standard library, or None without a report where there is none."""
        path = stdlib_root().joinpath(*dotted).with_suffix(".loss")
        if not self._plain_file(path, stdlib_root()):
            return None
        text = self._read(path)
        return (
            None
            if text is None
            else self._module("/".join(("stdlib", *dotted)) + ".loss", text, path.resolve(), path.parent)
        )

    def _read(self, path: Path) -> str | None:
        text = read_text(path, self.diagnostics)
        if text is not None:
            self.looked[absolute(path)] = state(path, text)
        return text

    def _plain_file(self, path: Path, base: Path) -> bool:
        found = _plain_file(path, base)
        if not found:
            self.looked[absolute(path)] = None
        return found

    def prelude(self) -> LoadedModule | None:
        """The definitions that every program sees."""
        return self.stdlib((PRELUDE,))

    def _module(self, name: str, text: str, key: Path | str, folder: Path | None) -> LoadedModule | None:
        if key in self._loaded:
            return self._loaded[key]
        if len(self._loaded) >= MAX_MODULES:
            self.diagnostics.report(
                "E060",
                f"more than {MAX_MODULES} files take part in this program",
                None,
                help="put what belongs together into one file",
            )
            return None
        self.sources[name] = text
        tree = _sound(name, text) or _reported(Source(name, text), self.diagnostics)
        if tree is None:
            self._loaded[key] = None
            return None
        module = LoadedModule(name, tree, broken=set(tree.broken))
        self._loading.append(key)
        for use in tree.uses:
            self._use(module, use, folder)
        self._loading.pop()
        self._declare(module)
        self._loaded[key] = module
        return module

    def _use(self, module: LoadedModule, use: ast.Use, folder: Path | None) -> None:
        found = self._find(use, folder)
        if found is None:
            module.broken.update(used.alias or used.name for used in use.names)
            return
        for used in use.names:
            alias = used.alias or used.name
            function = found.functions.get(used.name)
            record = found.records.get(used.name)
            if function is None and record is None:
                module.broken.add(alias)
                if used.name in found.broken:
                    continue
                near = suggest(used.name, [*found.functions, *found.records])
                self.diagnostics.report(
                    "E010",
                    f"{'.'.join(use.path)} has no {used.name}",
                    used.span,
                    help=f"did you mean {near}?" if near else f"it has {_listing([*found.records, *found.functions])}",
                )
                continue
            if alias in module.functions or alias in module.records:
                self.diagnostics.report(
                    "E011",
                    f"{alias} is already used from elsewhere",
                    used.span,
                    help=f"rename it: {used.name} as other_{used.name}",
                )
                continue
            if function is not None:
                module.functions[alias] = function
            if record is not None:
                module.records[alias] = record

    def _find(self, use: ast.Use, folder: Path | None) -> LoadedModule | None:
        candidates: list[tuple[str, Path, Path]] = []
        if folder is not None:
            candidates.append(("/".join(use.path) + ".loss", folder, folder.joinpath(*use.path).with_suffix(".loss")))
        root = stdlib_root()
        candidates.append(
            ("/".join(("stdlib", *use.path)) + ".loss", root, root.joinpath(*use.path).with_suffix(".loss"))
        )
        for name, base, path in candidates:
            if name in self.given:
                return self._module(name, self.given[name], f"<{name}>", None)
            if not self._plain_file(path, base):
                continue
            key = path.resolve()
            if key in self._loading:
                self.diagnostics.report(
                    "E015",
                    f"{'.'.join(use.path)} uses this file in turn",
                    use.span,
                    help="move what both need into a third file",
                )
                return None
            text = self._read(path)
            if text is None:
                return None
            self.sources[name] = text
            return self._module(name if base == root else str(path), text, key, path.parent)
        near = suggest(use.path[-1], module_names())
        self.diagnostics.report(
            "E014",
            f"there is no {'/'.join(use.path)}.loss beside this file or in the standard library",
            use.span,
            help=f"did you mean {near}?" if near else "lossdsl list shows what there is",
        )
        return None

    def _declare(self, module: LoadedModule) -> None:
        places: dict[str, Span] = {}
        declared: list[ast.Record | ast.Function] = [*module.tree.records, *module.tree.functions]
        for item in declared:
            span = item.name_span if isinstance(item, ast.Function) else item.span
            if item.name in places:
                from lossdsl.syntax.diagnostics import Label

                self.diagnostics.report("E011", f"{item.name} is declared twice", span, labels=[Label(places[item.name], "first here")],
                                        help="rename one of them")  # fmt: skip
                continue
            places[item.name] = span
            if isinstance(item, ast.Record):
                module.records[item.name] = (module, item)
            else:
                module.functions[item.name] = (module, item)


def _plain_file(path: Path, base: Path) -> bool:
    """A file inside base, reached without leaving it."""
    try:
        return path.is_file() and path.resolve().is_relative_to(base.resolve())
    except OSError:
        return False


def read_text(path: Path, diagnostics: Diagnostics) -> str | None:
    """The text of a file, or None after reporting why it cannot be read."""
    shown = str(path)
    try:
        if path.is_dir():
            diagnostics.report("E007", f"{shown} is a folder", None, help="name a .loss file in it")
            return None
        with path.open("rb") as stream:  # a device may go on forever
            content = stream.read(4 * MAX_TEXT + 1)
        if len(content) > 4 * MAX_TEXT:
            diagnostics.report(
                "E001",
                f"{shown} is longer than {MAX_TEXT:,} characters",
                None,
                help="split it into files that use each other",
            )
            return None
        return content.decode("utf-8-sig").replace("\r\n", "\n")
    except FileNotFoundError:
        near = suggest(path.name, [p.name for p in path.parent.glob("*.loss")] if path.parent.is_dir() else [])
        diagnostics.report(
            "E007", f"there is no file {shown}", None, help=f"did you mean {path.parent / near}?" if near else None
        )
    except UnicodeDecodeError:
        diagnostics.report("E007", f"{shown} is not a text file in UTF-8", None, help="a .loss file is plain text")
    except (OSError, ValueError) as error:
        diagnostics.report("E007", f"{shown} cannot be read: {getattr(error, 'strerror', None) or error}", None)
    return None


@cache
def module_names() -> tuple[str, ...]:
    """Names of the standard library's modules, papers as `papers.slug`."""
    root = stdlib_root()
    names = [p.stem for p in sorted(root.glob("*.loss"))]
    return (*names, *(f"papers.{p.stem}" for p in sorted((root / "papers").glob("*.loss"))))


@cache
def building_blocks() -> dict[str, str]:
    """Declared names of the standard library's families, each with its module; found without parsing."""
    found: dict[str, str] = {}
    for path in sorted(stdlib_root().glob("*.loss")):
        if path.stem == PRELUDE:
            continue
        for match in re.finditer(
            r"^(?:loss|def|record)\s+([A-Za-z_]\w*)", path.read_text(encoding="utf-8"), re.MULTILINE
        ):
            found.setdefault(match.group(1), path.stem)
    return found


def _listing(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", .." if len(names) > 12 else "") if names else "no names"
