"""What a recipe can hold where: the sections, unions and lists behind each path, read off the schema."""

import difflib
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from ftk.core.config import MODULE_FUNCTION, ByName, OneOrMore, Section, members
from ftk.recipe.written import Written


@dataclass(frozen=True)
class Shape:
    """What one place takes: a scalar, a section or a union of them, or a list of such."""

    sections: Mapping[str, type[Section]] = field(default_factory=dict)
    """Sections by name; one that no name picks stands under the empty name."""
    by_name: ByName | None = None
    item: "Shape | None" = None
    """What a list holds."""
    one_or_more: bool = False
    """Whether one item may stand for a list of one."""
    scalars: frozenset[object] = frozenset()
    """Python types that a scalar may have."""
    info: FieldInfo | None = None

    def section(self, written: Written | None) -> type[Section] | None:
        """The section that a mapping written here means; None where that cannot be told."""
        if self.by_name is None:
            return self.sections.get("")
        name = written.child("name") if written is not None else None
        chosen = name.value if name is not None else self.by_name.default
        if isinstance(chosen, str) and ":" in chosen:
            chosen = MODULE_FUNCTION
        return self.sections.get(chosen) if isinstance(chosen, str) else None

    def below(self, key: str | int, written: Written | None) -> "Shape | None":
        """The shape of a field, or of a list's item; None where there is no such field."""
        if self.item is not None:
            return self.item
        section = self.section(written)
        info = section.model_fields.get(str(key)) if section is not None else None
        return shape_of(info) if info is not None else None

    def expanded(self, written: Written) -> Written:
        """Plain words written out as the mappings and lists that they stand for, here and beneath."""
        if self.item is not None:
            return self._expanded_list(written, self.item)
        if isinstance(written.value, str) and self.sections:
            # A word and its mapping stand at the same place, and either may hide what the environment holds.
            data = (self.by_name or self.sections[""]).expand(written.value)
            items = {key: replace(written, value=value) for key, value in data.items()}
            written = Written(dict(items), written.place)
        if not isinstance(written.value, dict):
            return written
        below = {key: self.below(key, written) for key in written.value}
        return replace(
            written,
            value={
                key: shape.expanded(item) if (shape := below[key]) is not None else item
                for key, item in written.value.items()
            },
        )

    def _expanded_list(self, written: Written, item: "Shape") -> Written:
        if self.one_or_more and not isinstance(written.value, list):
            one: list[Written] = [] if written.value is None else [written]
            written = Written(one, written.place)
        if not isinstance(written.value, list):
            return written
        return replace(written, value=[item.expanded(one) for one in written.value])


def shape_of(info: FieldInfo) -> Shape:
    """The shape of a field of a section."""
    return replace(_shape(info.annotation, tuple(info.metadata)), info=info)


def root_shape(section: type[Section]) -> Shape:
    """The shape of a whole document."""
    return Shape(sections={"": section})


def _shape(annotation: Any, metadata: tuple[Any, ...]) -> Shape:
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _shape(inner, (*more, *metadata))
    by_name = next((entry for entry in metadata if isinstance(entry, ByName)), None)
    if by_name is not None:
        return Shape(sections=members(annotation), by_name=by_name)
    if get_origin(annotation) in (Union, types.UnionType):
        return _joined(_shape(choice, ()) for choice in get_args(annotation))
    if get_origin(annotation) is tuple:
        one_or_more = any(isinstance(entry, OneOrMore) for entry in metadata)
        return Shape(item=_shape(get_args(annotation)[0], ()), one_or_more=one_or_more)
    if get_origin(annotation) is Literal:
        return Shape(scalars=frozenset(type(value) for value in get_args(annotation)))
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return Shape(sections={"": annotation})
    return Shape(scalars=frozenset({annotation} if isinstance(annotation, type) else ()))


def _joined(shapes: Iterable[Shape]) -> Shape:
    """One shape for a union such as `Source | None` or `int | Literal["auto"]`."""
    kept = [shape for shape in shapes if shape.scalars != {types.NoneType}]
    scalars = frozenset[object]().union(*(shape.scalars for shape in kept))
    best = next((shape for shape in kept if shape.sections), None) or (kept[0] if len(kept) == 1 else Shape())
    return replace(best, scalars=scalars)


def fields(section: type[Section], path: str = "") -> Iterator[tuple[str, FieldInfo, str]]:
    """Every field beneath a section: its path, itself, and the name of the union's member it belongs to, if any.

    Items of a list stand under the list's own path.
    """
    for key, info in section.model_fields.items():
        here = f"{path}.{key}" if path else key
        yield here, info, ""
        shape = shape_of(info)
        while shape.item is not None:
            shape = shape.item
        for name, member in shape.sections.items():
            yield from ((below, inner, of or name) for below, inner, of in fields(member, here))


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that a word was probably meant to be."""
    known = list(choices)
    by_folded = {choice.lower().replace("-", "_"): choice for choice in known}
    close = difflib.get_close_matches(word.lower().replace("-", "_"), by_folded, n=1, cutoff=0.7)
    return by_folded[close[0]] if close else None
