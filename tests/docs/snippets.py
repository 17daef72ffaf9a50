"""Reading the code blocks of a Markdown page, and trying them.

What is tried:

    ```loss      a program must check without errors; a fragment without declarations must parse as a body
    ```python    is run; the ```text block behind it, if there is one, must be what it prints
    ```sh        every line is run and must succeed
    ```console   lines behind `$` are run and must print the lines that follow

A word behind the language changes that: `loss E030` must give that finding, `sketch` (any language) is
not tried. A paragraph that ends with a file name in backticks and a colon puts the `loss` block behind
it into that file. In expected output a line `...` stands for any lines, and `...` in a line for any
text. Other commands than lossdsl, cat, echo $? and python are only looked up: `make TARGET` must be a
target. All blocks of a page share one folder.
"""

import io
import re
import shlex
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import lossdsl
from lossdsl.checker.resolve import is_program
from lossdsl.cli import main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LOOKED_UP = ("make", "pip", "git", "cd")


@dataclass
class Block:
    """One fenced block. before: the text between the block before and this one."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int
    before: str

    @property
    def file(self):
        """The file that the paragraph before says this is."""
        match = re.search(r"`([\w/]+\.loss)`:\s*\Z", self.before)
        return match.group(1) if match else None


def blocks(page):
    """The code blocks of a page, in order."""
    out, opened, lines, before = [], None, [], []
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        fence = re.match(r"^```(.*)$", line)
        if fence and opened is None:
            opened = (fence.group(1).split(), number)
            lines = []
        elif fence:
            (language, *words), start = opened if opened[0] else (([""]), opened[1])
            out.append(Block(language, tuple(words), "\n".join(lines) + "\n", start, "\n".join(before)))
            opened, before = None, []
        elif opened is not None:
            lines.append(line)
        else:
            before.append(line)
    assert opened is None, f"{page.name}:{opened[1]}: this block is never closed"
    return out


def matches(expected, found):
    """Is this the expected output, where `...` stands for any lines?"""
    want = [line.rstrip() for line in expected.strip("\n").splitlines()]
    got = [line.rstrip() for line in found.strip("\n").splitlines()]
    return _matches(want, got)


def _matches(want, got):
    if not want:
        return not got
    if want[0].strip() == "...":
        return any(_matches(want[1:], got[k:]) for k in range(len(got) + 1))
    return bool(got) and _fits(want[0], got[0]) and _matches(want[1:], got[1:])


def _fits(want, got):
    """A line whose end or middle is `...` fits any such line."""
    pattern = ".*".join(re.escape(part) for part in want.split("..."))
    return re.fullmatch(pattern, got) is not None


class Page:
    """Tries the blocks of one page in a folder, which must be the current one."""

    def __init__(self, page):
        self.page = page
        self.status = 0
        self.failures = []

    def run(self):
        """What went wrong, one text for each failure."""
        found = blocks(self.page)
        for k, block in enumerate(found):
            following = found[k + 1] if k + 1 < len(found) else None
            if "sketch" in block.words:
                continue
            action = getattr(self, f"_{block.language}", None)
            if action is None:
                continue
            try:
                action(block, following)
            except BaseException as error:  # whatever a snippet does
                self._fail(block, f"{type(error).__name__}: {error}")
        return self.failures

    def _fail(self, block, message):
        self.failures.append(f"{self.page.name}:{block.line}: {message}")

    def _loss(self, block, following):
        text = block.text
        if block.file:
            Path(block.file).write_text(text, encoding="utf-8")
        wanted = {word for word in block.words if re.fullmatch(r"E\d+", word)}
        if is_program(text):
            found = lossdsl.check(text)
        else:
            body = "".join(f"    {line}\n" if line else "\n" for line in text.splitlines())
            found = _parse(f"def fragment(x: real):\n{body}")
        codes = {d.code for d in found if d.severity == "error"}
        if codes != wanted:
            self._fail(block, "\n".join(map(str, found)) or f"no {' '.join(wanted)}")

    def _python(self, block, following):
        out = io.StringIO()
        code = compile("\n" * block.line + block.text, str(self.page), "exec")
        with redirect_stdout(out):
            exec(code, {"__name__": "__main__"})
        between = following is not None and not following.before.strip()
        if between and following.language == "text" and not matches(following.text, out.getvalue()):
            self._fail(following, f"printed\n{out.getvalue()}")

    def _sh(self, block, following):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                out = self._command(words)
                if self.status:
                    self._fail(block, f"{line}: exit status {self.status}\n{out}")

    def _console(self, block, following):
        for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
            line, _, expected = part.partition("\n")
            out = self._command(shlex.split(line, comments=True))
            if not matches(expected, out):
                self._fail(block, f"{line}: printed\n{out}")

    def _command(self, words):
        """The output of a command, both streams in one."""
        out = io.StringIO()
        head = words[0]
        if head == "lossdsl":
            with redirect_stdout(out), redirect_stderr(out):
                self.status = main(words[1:])
        elif head == "cat":
            out.write("".join(Path(name).read_text(encoding="utf-8") for name in words[1:]))
        elif words == ["echo", "$?"]:
            out.write(f"{self.status}\n")
        elif head == "python" and words[1] == "-c":
            with redirect_stdout(out):
                exec(words[2], {"__name__": "__main__"})
        elif head == "make":
            makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
            self.status = int(re.search(rf"^{words[1]}:", makefile, re.MULTILINE) is None)
        else:
            assert head in LOOKED_UP, f"{head} is not tried; mark the block as a sketch"
            self.status = 0
        return out.getvalue()


def _parse(text):
    from lossdsl.syntax.diagnostics import Diagnostics
    from lossdsl.syntax.parser import parse
    from lossdsl.syntax.source import Source

    diagnostics = Diagnostics()
    parse(Source("<fragment>", text), diagnostics)
    return diagnostics.found
