"""The rows of a stage, as their files are now: whether they are there, and whether they are those it was trained on."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from ftk.data.settings import Source
from ftk.data.source import reader_of
from ftk.data.texts import read_texts
from ftk.recipe.schema import Recipe


def with_answers(rows: str, files: Sequence[str]) -> str:
    """What tells rows together with the answers in these files; `rows` itself where there are none."""
    if not files:
        return rows
    digest = hashlib.sha256(rows.encode())
    for file in files:
        digest.update(hashlib.sha256(Path(file).read_bytes()).digest())
    return digest.hexdigest()


def rows_digest(recipe: Recipe, sources: Sequence[Source], *, role: str) -> str:
    """What tells these rows from others, from the bytes of their files.

    Raises:
        DataError: a source is not there or cannot be read.
    """
    if recipe.task.rows == "texts":
        return read_texts(sources, role=role).fingerprint if sources else ""
    return hashlib.sha256("".join(reader_of(source).fingerprint() for source in sources).encode()).hexdigest()
