"""Parameters of a merge: one number, a gradient over the layers, or another value by the tensor's name."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

Scalar = bool | int | float | str
Gradient = tuple[Scalar, ...]


@dataclass(frozen=True)
class Filtered:
    """A value for the tensors whose name has `filter` in it; None and `*` are all of them."""

    filter: str | None
    value: Scalar | Gradient

    def applies_to(self, tensor: str) -> bool:
        """Whether it is meant for the tensor of this name."""
        return self.filter is None or self.filter == "*" or self.filter in tensor


Setting = Scalar | Gradient | tuple[Filtered, ...]
"""As it was written; `resolved` makes one value of it."""
Parameters = Mapping[str, Setting]


def resolved(setting: Setting, *, tensor: str, depth: float) -> Scalar | None:
    """The value for one tensor; None where no filter fits its name.

    Args:
        setting: a gradient's numbers lie at equal distances over the layers, with straight lines between them; of
            words and booleans the one before is taken.
        tensor: the tensor's name, in which filters look.
        depth: 0 at the first layer of the slice, 1 at its last; 0 too for tensors outside of layers.

    Source: mergekit's README, "Parameter Specification".
    """
    if not isinstance(setting, tuple):
        return setting
    if setting and isinstance(setting[0], Filtered):
        fitting = (one for one in setting if isinstance(one, Filtered) and one.applies_to(tensor))
        first = next(fitting, None)
        return None if first is None else resolved(first.value, tensor=tensor, depth=depth)
    points = [point for point in setting if not isinstance(point, Filtered)]
    return _at(points, depth)


def _at(points: list[Scalar], depth: float) -> Scalar:
    place = depth * (len(points) - 1)
    before = int(place)
    left, right = points[before], points[min(before + 1, len(points) - 1)]
    if isinstance(left, bool | str) or isinstance(right, bool | str):
        return left
    return (1 - (place - before)) * left + (place - before) * right


def first_resolved(scopes: Iterable[Parameters], name: str, *, tensor: str, depth: float) -> Scalar | None:
    """The value from the first scope that has one for the tensor."""
    for scope in scopes:
        if name in scope:
            value = resolved(scope[name], tensor=tensor, depth=depth)
            if value is not None:
                return value
    return None
