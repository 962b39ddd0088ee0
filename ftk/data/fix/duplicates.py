"""`duplicates` and `near_duplicates`: rows that say what an earlier one says."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from ftk.data.fix.texts import read_columns, texts_of
from ftk.data.formats.format import Format

ABOUT = "rows go in which all that training reads is equal to an earlier one"
ABOUT_NEAR = "rows go that are nearly equal to an earlier one"


def key_of(row: Mapping[str, Any], format: Format[Any] | None) -> bytes:
    """Equal for rows in which all columns that training reads are equal; 16 bytes, so that millions fit in memory."""
    read = {column: row[column] for column in read_columns(row, format)}
    said = json.dumps(read, sort_keys=True, default=repr)
    return hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def near_text_of(row: Mapping[str, Any], format: Format[Any] | None) -> str:
    """The text by which nearness is measured."""
    return "\n".join(texts_of(row, format))
