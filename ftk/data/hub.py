"""Rows of a data set on the Hugging Face hub."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk.core.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


class HubRows:
    """One split of a data set on the hub, fetched when it is first asked for."""

    def __init__(self, id: str, *, subset: str | None, split: str, revision: str | None) -> None:
        self.id, self.subset, self.split, self.revision = id, subset, split, revision
        self._dataset: Dataset | None = None

    def fetch(self) -> "Dataset":
        """
        Raises:
            DataError: no such data set, subset or split, or the hub cannot be reached.
        """
        if self._dataset is None:
            from datasets import load_dataset

            try:
                self._dataset = load_dataset(self.id, self.subset, split=self.split, revision=self.revision)
            except Exception as error:  # the hub's client raises errors of many libraries
                raise DataError(
                    f"neither a file or folder here, nor could it be loaded from the hub: {_first_line(error)}. Check "
                    "the id, subset, split and revision, and for a private set that HF_TOKEN is set",
                    place=self.id,
                ) from error
        return self._dataset

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        yield from enumerate(self.fetch(), start=1)

    def fingerprint(self) -> str:
        """Digest of what was fetched: the Arrow files that hold it, or the rows themselves where none does."""
        dataset = self.fetch()
        digest = hashlib.sha256(repr((self.id, self.subset, self.split, len(dataset))).encode())
        files = [Path(one["filename"]) for one in dataset.cache_files]
        for path in files:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        if not files:
            for row in dataset:
                digest.update(repr(row).encode())
        return digest.hexdigest()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
