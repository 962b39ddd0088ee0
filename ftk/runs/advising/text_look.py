"""Plain text as `ftk init` sees it: which files are meant, whether they are source code, and how long they are."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ftk.core.errors import DataError
from ftk.data.files import SUFFIXES
from ftk.data.settings import Source
from ftk.data.text_files import TEXT_SUFFIXES, num_lines
from ftk.data.texts import STDLIB, read_texts

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CODE_SUFFIXES = frozenset(
    (
        ".py",
        ".js",
        ".jsx",
        ".ts",
        ".tsx",
        ".java",
        ".kt",
        ".scala",
        ".go",
        ".rs",
        ".c",
        ".h",
        ".cc",
        ".cpp",
        ".hpp",
        ".cs",
        ".rb",
        ".php",
        ".swift",
        ".lua",
        ".jl",
        ".hs",
        ".sql",
        ".sh",
    )
)
MOST_CHARACTERS = 50_000
"""Of a document that are tokenized; the rest is taken to be like them."""


@dataclass(frozen=True, slots=True)
class Documents:
    """The documents of a source."""

    heads: list[str] = field(default_factory=list)
    """The beginning of each."""
    sizes: list[int] = field(default_factory=list)
    """Characters of each."""
    num_parts: int = 0
    """What a slice of the source counts: lines of the one file, or documents."""


def text_source(data: str) -> tuple[Source | None, Literal["cpt", "infill"]]:
    """The source that reads plain text or code at `data`, and what it is for; None where it holds rows.

    Raises:
        DataError: a folder has neither data files, nor text, nor code.
    """
    if data == STDLIB:
        return Source(source=data), "infill"
    path = Path(data).expanduser()
    if path.suffix in TEXT_SUFFIXES:
        return Source(source=data), "cpt"
    if path.is_file() and path.suffix in CODE_SUFFIXES:
        return Source(source=data), "infill"
    if not path.is_dir() or any(one.suffix in SUFFIXES for one in path.iterdir()):
        return None, "cpt"
    kinds = Counter(one.suffix for one in path.rglob("*") if one.is_file() and not one.name.startswith("."))
    texts = sum(kinds[suffix] for suffix in TEXT_SUFFIXES)
    code, number = max(((suffix, kinds[suffix]) for suffix in sorted(CODE_SUFFIXES)), key=lambda one: one[1])
    if not texts and not number:
        raise DataError(
            f"the folder has neither rows ({', '.join(SUFFIXES)}) nor text ({', '.join(TEXT_SUFFIXES)}) nor code",
            place=data,
        )
    return (Source(source=data, glob=(f"**/*{code}",)), "infill") if number > texts else (Source(source=data), "cpt")


def documents_of(source: Source) -> Documents:
    """Read all documents, and keep the beginning of each.

    Raises:
        DataError: one does not read, or there is none.
    """
    heads: list[str] = []
    sizes: list[int] = []
    for block in read_texts([source]).readers[0].blocks(Counter()):
        if block.begins:
            heads.append("")
            sizes.append(0)
        heads[-1] += block.text[: MOST_CHARACTERS - len(heads[-1])]
        sizes[-1] += len(block.text)
    kept = [place for place, head in enumerate(heads) if head.strip()]
    if not kept:
        raise DataError("there is no text in it", place=source.source)
    path = Path(source.source).expanduser()
    num_parts = num_lines(path) if path.is_file() and path.suffix not in SUFFIXES else len(sizes)
    return Documents([heads[place] for place in kept], [sizes[place] for place in kept], num_parts)


def num_tokens_of(texts: list[str], tokenizer: "PreTrainedTokenizerBase") -> list[int]:
    """Tokens of each text."""
    return [len(ids) for ids in tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]]
