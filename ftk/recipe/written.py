"""A recipe as it was written: values that still know where they stand, before any of them is validated."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

Scalar = str | int | float | bool | None
Path = tuple[str | int, ...]
"""Keys and indices that lead to a value."""


@dataclass(frozen=True)
class Problem:
    """One violation, for a message that lists them all."""

    place: str
    message: str


@dataclass(frozen=True)
class Written:
    """One value of a recipe and its place. Mappings and lists hold further ones; nothing is changed in place."""

    value: "dict[str, Written] | list[Written] | Scalar"
    place: str
    """`file:line`, or the override that it came from."""
    text: str | None = None
    """A scalar's text, environment variables already filled in; None for mappings and lists."""
    source: str | None = None
    """The text before environment variables were filled in, where there were any. It may be shown, the value not."""

    def data(self) -> object:
        """Plain mappings, lists and scalars, as pydantic takes them."""
        if isinstance(self.value, dict):
            return {key: item.data() for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item.data() for item in self.value]
        return self.value

    def child(self, key: str | int) -> "Written | None":
        """What stands under a key or an index; None where there is nothing."""
        if isinstance(self.value, dict):
            return self.value.get(str(key))
        if isinstance(self.value, list) and isinstance(key, int) and 0 <= key < len(self.value):
            return self.value[key]
        return None

    def shown(self) -> str:
        """The value for a message: as written, so that what the environment holds stays there."""
        if isinstance(self.value, dict):
            return "a mapping"
        if isinstance(self.value, list):
            return "a list"
        if self.source is not None:
            return self.source
        if isinstance(self.value, str):
            return repr(self.value)
        return self.text or "null"

    def walk(self, path: Path = ()) -> "Iterator[tuple[Path, Written]]":
        """Every value beneath, with its path."""
        children: Iterable[tuple[str | int, Written]] = ()
        if isinstance(self.value, dict):
            children = self.value.items()
        elif isinstance(self.value, list):
            children = enumerate(self.value)
        for key, item in children:
            yield (*path, key), item
            yield from item.walk((*path, key))


def dotted(path: Path) -> str:
    """A path as people write it, such as `data.train.0.source`."""
    return ".".join(str(part) for part in path)


def merged(base: Written | None, over: Written) -> Written:
    """`over` on top of `base`: mappings merge key by key, anything else replaces; another `name` replaces all."""
    if base is None or not isinstance(base.value, dict) or not isinstance(over.value, dict):
        return over
    if _is_renamed(base.value, over.value):
        return over
    items = dict(base.value)
    for key, item in over.value.items():
        items[key] = merged(items.get(key), item)
    return replace(over, value=items)


def _is_renamed(base: dict[str, Written], over: dict[str, Written]) -> bool:
    return "name" in base and "name" in over and base["name"].value != over["name"].value
