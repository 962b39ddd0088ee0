"""Mappings of a merge's file: their keys are known, and each value has the kind that it must have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ftk.recipe.shapes import nearest
from ftk.recipe.written import Problem, Written


@dataclass
class Checked:
    """Reads values out of a file, and keeps a list of everything wrong with it."""

    problems: list[Problem] = field(default_factory=list)

    def refuse(self, node: Written, message: str) -> None:
        """Note that a value is wrong."""
        self.problems.append(Problem(node.place, message))

    def mapping(self, node: Written, path: str, known: Iterable[str]) -> dict[str, Written]:
        """The items of a mapping that are known and not null; the others, or that it is none, are noted."""
        known = list(known)
        if not isinstance(node.value, dict):
            self.refuse(node, f"{path or 'the file'} is {node.shown()}, expected a mapping with {', '.join(known)}")
            return {}
        for key, item in node.value.items():
            if key not in known:
                where = f"{path}.{key}" if path else key
                near = nearest(key, known)
                hint = f"Did you mean {near}?" if near else f"There are: {', '.join(known)}."
                self.refuse(item, f"{where} is not a key of {path or 'a merge'}. {hint}")
        return {key: item for key, item in node.value.items() if key in known and item.value is not None}

    def items(self, node: Written | None, path: str) -> list[tuple[str, Written]]:
        """The items of a list, each with its path; that there are none is noted."""
        if node is None:
            return []
        if not isinstance(node.value, list) or not node.value:
            self.refuse(node, f"{path} is {'empty' if node.value == [] else node.shown()}, expected a list")
            return []
        return [(f"{path}.{number}", item) for number, item in enumerate(node.value)]

    def text(self, items: Mapping[str, Written], key: str, path: str) -> str | None:
        """Text under a key."""
        node = items.get(key)
        if node is None:
            return None
        if isinstance(node.value, dict | list) or node.text is None:
            self.refuse(node, f"{_joined(path, key)} is {node.shown()}, expected text")
            return None
        return node.text if not isinstance(node.value, str) else node.value

    def whole(self, items: Mapping[str, Written], key: str, path: str, *, lowest: int) -> int | None:
        """A whole number under a key."""
        node = items.get(key)
        if node is None:
            return None
        if isinstance(node.value, bool) or not isinstance(node.value, int) or node.value < lowest:
            self.refuse(node, f"{_joined(path, key)} is {node.shown()}, expected a whole number of at least {lowest}")
            return None
        return node.value

    def flag(self, items: Mapping[str, Written], key: str, path: str) -> bool:
        """True or false under a key; false where there is none."""
        node = items.get(key)
        if node is None:
            return False
        if not isinstance(node.value, bool):
            self.refuse(node, f"{_joined(path, key)} is {node.shown()}, expected true or false")
            return False
        return node.value


def _joined(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
