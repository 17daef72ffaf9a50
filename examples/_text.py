"""Real English sentences from the documentation that Python and its packages ship, as numbered words."""

from __future__ import annotations

import ast
import importlib.util
import re
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import torch
from torch import Tensor
from tqdm import tqdm

Words = tuple[str, ...]

SOURCES = ("python", "numpy", "scipy", "sklearn", "matplotlib")
SKIPPED = ("test", "tests", "site-packages", "idlelib", "lib2to3", "externals", "_vendor")
SHORTEST, LONGEST = 10, 30
WORD = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")
PAD, UNKNOWN, BEGIN = "<pad>", "<unk>", "<s>"


def _docstrings(root: Path) -> Iterator[str]:
    files = [path for path in sorted(root.rglob("*.py")) if not set(path.relative_to(root).parts) & set(SKIPPED)]
    for path in tqdm(files, desc=f"reading {root.name}", leave=False):
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield ast.get_docstring(node) or ""


def _folder(source: str) -> Path | None:
    if source == "python":
        return Path(sysconfig.get_path("stdlib"))
    found = importlib.util.find_spec(source)
    return Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else None


def _documents(sources: Sequence[str]) -> Iterator[str]:
    yield from (topics[name] for name in sorted(topics))  # the language reference, as `help()` shows it
    for folder in filter(None, map(_folder, sources)):
        yield from _docstrings(folder)


def sentences(sources: Sequence[str] = SOURCES) -> list[Words]:
    """Distinct sentences of ten to thirty words, lower-cased and split into words, numbers and signs.

    They come from the reference that Python's `help()` shows, and from the docstrings of these sources:
    package names, and `python` for the standard library. A package that is not installed is left out.
    """
    found: dict[Words, None] = {}
    for text in _documents(sources):
        for paragraph in re.split(r"\n\s*\n", text):
            for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z])", " ".join(paragraph.split())):
                words = tuple(WORD.findall(sentence.lower()))
                prose = sentence[:1].isupper() and sentence.endswith(".")
                if prose and SHORTEST <= len(words) <= LONGEST and sum(map(str.isalpha, words)) > 0.8 * len(words):
                    found[words] = None
    return list(found)


@dataclass(frozen=True)
class Vocabulary:
    """The words seen often enough; every other word is one unknown."""

    words: tuple[str, ...]
    index: dict[str, int]

    @classmethod
    def of(cls, texts: Sequence[Words], least: int = 4) -> Vocabulary:
        """The vocabulary of these texts."""
        count = Counter(word for text in texts for word in text)
        words = (PAD, UNKNOWN, BEGIN, *sorted(word for word, times in count.items() if times >= least))
        return cls(words, {word: k for k, word in enumerate(words)})

    def __len__(self) -> int:
        return len(self.words)

    def knows(self, text: Words) -> bool:
        """Whether every word of the text has its own number."""
        return all(word in self.index for word in text)

    def encode(self, texts: Sequence[Words]) -> Tensor:
        """Word numbers [B, LONGEST + 1], each row beginning with the start mark and padded at its end."""
        rows = torch.full((len(texts), LONGEST + 1), self.index[PAD])
        for row, text in zip(rows, texts, strict=True):
            numbers = [self.index[BEGIN], *(self.index.get(word, self.index[UNKNOWN]) for word in text)]
            row[: len(numbers)] = torch.tensor(numbers)
        return rows

    def decode(self, row: Tensor) -> str:
        """The words of one row, without its marks."""
        return " ".join(self.words[k] for k in row.tolist() if self.words[k] not in (PAD, BEGIN))


@dataclass(frozen=True)
class Pairs:
    """Prompts with their two answers: word numbers [B, T], and where the answer stands, bool [B, T]."""

    chosen: Tensor
    rejected: Tensor
    answer: Tensor

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, rows: Tensor | slice) -> Pairs:
        return Pairs(self.chosen[rows], self.rejected[rows], self.answer[rows])


def prompts(texts: Sequence[Words], vocabulary: Vocabulary) -> tuple[Tensor, Tensor]:
    """Word numbers [B, T] of the texts, and where their answers stand: after the first third, bool [B, T]."""
    position = torch.arange(LONGEST + 1)
    length = torch.tensor([len(words) for words in texts])[:, None]
    return vocabulary.encode(texts), (position > length // 3) & (position <= length)
