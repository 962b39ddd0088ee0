"""`encoding`: the bytes of a file that are not UTF-8."""

import codecs

from ftk.core.errors import DataError, RecipeError

_MARKS = (
    # UTF-32's mark begins with UTF-16's.
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)


class Decoder:
    """Turns files into UTF-8, and remembers which were not.

    A byte-order mark says the encoding by itself. Without one it is never guessed, since every guess reads some bytes
    wrongly without an error.
    """

    def __init__(self, encoding: str | None) -> None:
        """
        Raises:
            RecipeError: there is no such encoding.
        """
        self._encoding = encoding
        self.found: dict[str, str] = {}
        """Encoding by file, of the files that were not plain UTF-8."""
        try:
            codecs.lookup(encoding or "utf-8")
        except LookupError as error:
            raise RecipeError(
                f"there is no encoding {encoding}, expected such as cp1252, latin-1 or shift_jis", place="--encoding"
            ) from error

    def __call__(self, content: bytes, name: str) -> bytes:
        """
        Raises:
            DataError: it is in another encoding, with the line.
        """
        marked = next((encoding for mark, encoding in _MARKS if content.startswith(mark)), None)
        encoding = marked or self._encoding or "utf-8"
        try:
            decoded = content.decode(encoding).encode()
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"byte 0x{content[error.start]:02x} is no {encoding}. Say what the file is in, such as "
                "--encoding cp1252",
                place=f"{name}:{line}",
            ) from error
        except UnicodeEncodeError as error:
            raise DataError(f"the file does not read as {encoding}. Say another --encoding", place=name) from error
        if decoded != content:
            self.found[name] = encoding
        return decoded
