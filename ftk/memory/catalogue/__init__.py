"""Well-known architectures by hub id, so that an estimate needs no connection.

`models.json` holds what a config.json says of a model, `aliases.json` the ids of models with the same numbers.
Source: the models' published configurations.
"""

import difflib
import json
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any


def look_up(name: str) -> Mapping[str, Any] | None:
    """The configuration of a model by its hub id, in any case of letters; None where it is not in the catalogue."""
    ids = _ids()
    known = ids.get(name.lower())
    return None if known is None else models()[known]


def near(name: str) -> list[str]:
    """Ids of the catalogue that are called almost so, the nearest first."""
    ids = _ids()
    lower = name.lower()
    by_name = {known.rsplit("/", 1)[-1]: known for known in ids}
    last = lower.rsplit("/", 1)[-1]
    # Names that the one asked for is the end of, such as meta-llama-3-8b of llama-3-8b, are nearer than any letters.
    found = [ids[known] for end, known in by_name.items() if end.endswith(f"-{last}")]
    found += [ids[close] for close in difflib.get_close_matches(lower, ids, n=3, cutoff=0.7)]
    found += [ids[by_name[close]] for close in difflib.get_close_matches(last, by_name, n=3, cutoff=0.6)]
    return list(dict.fromkeys(found))[:3]


@cache
def models() -> dict[str, dict[str, Any]]:
    """Configurations by hub id."""
    return _read("models.json")


@cache
def _ids() -> dict[str, str]:
    """Id of the catalogue by each name in small letters."""
    known = {name.lower(): name for name in models()}
    return known | {alias.lower(): name for alias, name in _read("aliases.json").items()}


def _read(name: str) -> dict[str, Any]:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content
