"""Reference log-probabilities on disk, in parts, under a key of all they depend on.

Shapes: N examples, K completions of an example.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ftk
from ftk.core.atomic import atomic_write, remove_folder
from ftk.core.types import Examples
from ftk.models.context import ContextSettings
from ftk.models.extend import CONTEXT_FILE
from ftk.models.locate import ModelPlace

Parts = dict[int, NDArray[np.float32]]
_FACTS = "facts.json"
_COMPUTED_BY = ("models", "numerics", "quantization")
"""Folders of ftk whose code these figures come out of: what another state of it computed is not reused."""


@dataclass(frozen=True)
class ReferenceFacts:
    """What reference log-probabilities are of."""

    data: str
    """The files, as a person knows them."""
    model: str
    """The model, as a person knows it."""
    weights: str
    """Digest of the model's files, its adapter's included."""
    rows: str
    """Digest of the rows as tokens."""
    precision: str
    """Number formats, device, kernels, versions and code that computed them."""

    @property
    def key(self) -> str:
        """Names apart: a folder that was moved holds the same weights."""
        told = json.dumps([self.weights, self.rows, self.precision])
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    def differs(self, other: "ReferenceFacts") -> list[str]:
        """What makes the other's figures useless here, in words."""
        parts = {"another model": "weights", "other rows": "rows", "another precision or version": "precision"}
        return [words for words, name in parts.items() if getattr(self, name) != getattr(other, name)]


class ReferenceCache:
    """What is known of one set of rows. A folder that cannot be written is no reason to stop."""

    def __init__(self, folder: Path, facts: ReferenceFacts) -> None:
        self._parent = folder
        self._folder = folder / f"reference-{facts.key}"
        self.facts = facts

    def begin(self) -> str | None:
        """Make the folder; a sentence where figures of these files are there that do not hold here."""
        found = _read_facts(self._folder)
        if found is not None and not self.facts.differs(found):
            return None
        told = None if found is None else self._told(found)
        with suppress(OSError):
            if self._folder.exists():
                remove_folder(self._folder)
            # Looked for before its own are there.
            told = told or self._of_another()
            self._folder.mkdir(parents=True)
            atomic_write(self._folder / _FACTS, json.dumps(asdict(self.facts), indent=2) + "\n")
        return told

    def parts(self, shapes: Mapping[int, tuple[int, int]]) -> Parts:
        """The parts that are there, by number; one that is damaged, or of another shape, is not."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        found: Parts = {}
        for number, shape in shapes.items():
            with suppress(OSError, ValueError, KeyError, SafetensorError):
                logps_NK = load_file(self._part(number))["logps"]
                if logps_NK.shape == shape and logps_NK.dtype == np.float32:
                    found[number] = logps_NK
        return found

    def save(self, number: int, logps_NK: NDArray[np.float32]) -> None:
        from safetensors.numpy import save

        with suppress(OSError):
            atomic_write(self._part(number), save({"logps": np.ascontiguousarray(logps_NK)}))

    def _part(self, number: int) -> Path:
        return self._folder / f"part-{number:05d}.safetensors"

    def _of_another(self) -> str | None:
        """A sentence on the latest figures of the same files, where there are any."""
        others = sorted(self._parent.glob(f"reference-*/{_FACTS}"), key=lambda path: -path.stat().st_mtime)
        known = (_read_facts(path.parent) for path in others)
        found = next((facts for facts in known if facts is not None and facts.data == self.facts.data), None)
        return None if found is None else self._told(found)

    def _told(self, found: ReferenceFacts) -> str:
        what = " and ".join(self.facts.differs(found))
        of = f" ({found.model})" if found.model != self.facts.model else ""
        return f"the cached log-probabilities of {self.facts.data} were made from {what}{of}: computed anew"


def digest_of_model(place: ModelPlace, context: ContextSettings | None = None) -> str:
    """Digest of what the model and its adapter are made of, and of how it is extended.

    A commit of the hub stands for its files.
    """
    digest = hashlib.sha256()
    if context is not None:
        digest.update(context.model_dump_json().encode())
    if place.hub_id is not None and place.revision is not None:
        digest.update(f"{place.hub_id}@{place.revision}".encode())
        folders = [place.adapter_folder]
    else:
        folders = [place.folder, place.adapter_folder]
    for folder in folders:
        files = (
            []
            if folder is None
            else [*folder.glob("*.safetensors"), *folder.glob("*config.json"), *folder.glob(CONTEXT_FILE)]
        )
        for path in sorted(files):
            with path.open("rb") as file:
                digest.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}".encode())
    return digest.hexdigest()


def digest_of_rows(examples: Examples) -> str:
    """Digest of tokens, weights and branches."""
    digest = hashlib.sha256()
    for array in (examples.token_ids, examples.weights, examples.offsets, examples.branches):
        if array is not None:
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def digest_of_code() -> str:
    """Digest of the code that computes them."""
    digest = hashlib.sha256()
    root = Path(ftk.__file__).parent
    for path in sorted(file for folder in _COMPUTED_BY for file in (root / folder).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _read_facts(folder: Path) -> ReferenceFacts | None:
    try:
        return ReferenceFacts(**json.loads((folder / _FACTS).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # not there, or damaged
