"""What the tiny model reads: the standard library's sources and documentation, cut into documents.

Whole files and whole documentation topics are held out by a checksum of their names, so that the
held-out loss is measured on text of which the model has read no line.
"""

import ast
import random
import sysconfig
import zlib
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics

# Tables of code points, vendored wheels and generated grammars teach a small model nothing but their own noise;
# the test suite is as large as all the rest together and repeats itself.
SKIPPED_FOLDERS = {"site-packages", "test", "tests", "encodings", "pydoc_data", "lib2to3", "ensurepip", "__pycache__"}
HELD_OUT_ONE_IN = 40
PIECE_CHARACTERS = 2400


def is_held_out(name: str) -> bool:
    """Whether the file or topic of this name is kept for the held-out loss (one in forty, fixed by its name)."""
    return zlib.crc32(name.encode()) % HELD_OUT_ONE_IN == 0


def library_sources() -> dict[str, str]:
    """Text of each standard-library module, by its path relative to the library's folder."""
    root = Path(sysconfig.get_paths()["stdlib"])
    sources = {}
    for path in sorted(root.rglob("*.py")):
        relative = path.relative_to(root)
        if SKIPPED_FOLDERS.isdisjoint(relative.parts):
            sources[relative.as_posix()] = path.read_text(encoding="utf-8", errors="ignore")
    return sources


def docstrings(source: str) -> list[str]:
    """Docstrings of a module, its classes and functions that are long enough to be prose (200 characters)."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [text for text in found if len(text) >= 200]


def read_library(*, held_out: bool) -> tuple[list[str], list[str]]:
    """(code texts, prose texts) of the training part, or of the held-out part."""
    code, prose = [], []
    for name, text in library_sources().items():
        if is_held_out(name) == held_out and text.strip():
            code.append(text)
            prose.extend(docstrings(text))
    prose.extend(text for name, text in sorted(topics.items()) if is_held_out(name) == held_out)
    return code, prose


def pieces(text: str) -> list[str]:
    """Cut a text at line ends into pieces of about `PIECE_CHARACTERS`, so that one file cannot fill a batch."""
    cut: list[str] = []
    current: list[str] = []
    size = 0
    for line in text.splitlines(keepends=True):
        current.append(line)
        size += len(line)
        if size >= PIECE_CHARACTERS:
            cut.append("".join(current))
            current, size = [], 0
    return [*cut, "".join(current)] if current else cut


def shuffled_forever(texts: list[str], rng: random.Random) -> Iterator[str]:
    """Every piece of every text once in random order, then again in another order, without end."""
    all_pieces = [piece for text in texts for piece in pieces(text)]
    while True:
        rng.shuffle(all_pieces)
        yield from all_pieces


def infilling(piece: str, rng: random.Random) -> str:
    """One piece of code rearranged for infilling: prefix, suffix, then the missing middle.

    Source: Bavarian et al. 2022 (arXiv:2207.14255), the prefix-suffix-middle order.
    """
    start = rng.randrange(max(1, len(piece) - 900))
    window = piece[start : start + 900]
    left, right = sorted(rng.sample(range(len(window) + 1), 2)) if len(window) > 1 else (0, len(window))
    right = min(right, left + 240)
    prefix, middle, suffix = window[:left], window[left:right], window[right:]
    return f"<|fim_prefix|>{prefix}<|fim_suffix|>{suffix}<|fim_middle|>{middle}"
