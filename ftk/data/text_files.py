"""Files of plain text: which ones a source means, and their documents, read stretch by stretch."""

import codecs
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

from ftk.core.errors import DataError
from ftk.core.types import TextBlock

TEXT_SUFFIXES = (".txt", ".text", ".md", ".markdown", ".rst")
BLOCK_CHARS = 1 << 20
"""Characters of a document that are held at once; longer ones come in several blocks."""
_PROBED_BYTES = 8192
"""A zero byte within these tells binary data from text, as git has it."""

Unread = Literal["binary", "not UTF-8", "empty"]


def text_files_at(folder: Path, patterns: Sequence[str], *, name: str) -> list[Path]:
    """The files beneath `folder` that match one of `patterns`, in the order of their names, hidden ones left out.

    Raises:
        DataError: a pattern does not read, or nothing matches.
    """
    found: set[Path] = set()
    for pattern in patterns:
        try:
            matches = [path for path in folder.glob(pattern) if path.is_file()]
        except (ValueError, NotImplementedError) as error:
            raise DataError(f"glob {pattern!r} does not read: {error}. Expected such as **/*.py", place=name) from error
        found |= {path for path in matches if not _is_hidden(path.relative_to(folder))}
    if not found:
        raise DataError(f"no file matches glob {', '.join(patterns)}", place=name)
    return sorted(found)


def why_unread(path: Path, *, name: str) -> Unread | None:
    """Why a file is no text; None where it is one.

    Raises:
        DataError: the file cannot be read.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_empty = True
    try:
        with path.open("rb") as file:
            if b"\0" in file.read(_PROBED_BYTES):
                return "binary"
            file.seek(0)
            while content := file.read(BLOCK_CHARS):
                is_empty = is_empty and not content.removeprefix(codecs.BOM_UTF8).strip()
                decoder.decode(content)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return "not UTF-8"
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror or error}", place=name) from error
    return "empty" if is_empty else None


def num_lines(path: Path) -> int:
    """Lines of a text file, the last one with or without its end."""
    with path.open("rb") as file:
        return sum(1 for _ in file)


def read_documents(
    path: Path,
    *,
    name: str,
    separator: str | None = None,
    lines: tuple[int, int] | None = None,
    block_chars: int = BLOCK_CHARS,
) -> Iterator[TextBlock]:
    """The documents of a UTF-8 file: all of it, or what lies between separators, which belong to none.

    Blank documents are passed over. `lines` are the first line from 0, and the one after the last, that are read.
    """
    # Line ends are kept as they are.
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        if lines is None:
            chunks: Iterator[str] = iter(lambda: file.read(block_chars), "")
            start = 0
        else:
            start, stop = lines
            some = (line for number, line in enumerate(file) if start <= number < stop)
            chunks = _joined(some, block_chars)
        yield from blocks_of(
            chunks, source=name, first_row=start + 1, separator=separator, block_chars=block_chars, counts_lines=True
        )


def blocks_of(
    chunks: Iterable[str],
    *,
    source: str,
    first_row: int,
    separator: str | None = None,
    block_chars: int = BLOCK_CHARS,
    counts_lines: bool = False,
) -> Iterator[TextBlock]:
    """The documents in a stream of text, in blocks of at most twice `block_chars`.

    Blocks end between lines or words where they can: there a tokenizer cuts anyway, so that the tokens of the blocks
    are those of the whole.
    """
    rest, row, begun, begins = "", first_row, first_row, True

    def block(text: str, *, ends: bool) -> Iterator[TextBlock]:
        nonlocal row, begun, begins
        if not (begins and ends) or text.strip():
            yield TextBlock(text, begun, source, begins, ends)
        row += text.count("\n") if counts_lines else 0
        if ends and separator is not None:
            row += separator.count("\n") if counts_lines else 0
        begun, begins = (row, True) if ends else (begun, False)

    def whole(text: str, *, ends: bool) -> Iterator[TextBlock]:
        nonlocal rest
        while len(text) > 2 * block_chars:
            place = _cut_place(text, block_chars)
            yield from block(text[:place], ends=False)
            text = text[place:]
        if ends:
            yield from block(text, ends=True)
        else:
            rest = text

    for chunk in chunks:
        rest += chunk
        if separator is not None:
            *documents, rest = rest.split(separator)
            for document in documents:
                yield from whole(document, ends=True)
        yield from whole(rest, ends=False)
    yield from whole(rest, ends=True)


def count_documents(blocks: Iterable[TextBlock]) -> int:
    """How many documents end among `blocks`."""
    return sum(block.ends for block in blocks)


def counted(number: int, word: str) -> str:
    """`1 document`, `2,000 documents`."""
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def tally_line(skipped: Counter[str]) -> str:
    """What was left out, in words; empty where nothing was."""
    if not skipped:
        return ""
    counts = ", ".join(f"{number:,} {reason}" for reason, number in sorted(skipped.items()))
    return f"left out: {counts}"


def _cut_place(text: str, limit: int) -> int:
    """Where a block of about `limit` characters ends: between two lines, else before the blank between two words."""
    for seam, shift in (("\n", 1), (" ", 0)):
        place = text.rfind(seam, limit // 2, limit)
        while place > 0:
            if text[place - 1].isalnum() and text[place + 1].isalnum():
                return place + shift
            place = text.rfind(seam, limit // 2, place)
    return limit


def _joined(lines: Iterable[str], block_chars: int) -> Iterator[str]:
    some: list[str] = []
    size = 0
    for line in lines:
        some.append(line)
        size += len(line)
        if size >= block_chars:
            yield "".join(some)
            some, size = [], 0
    yield "".join(some)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)
