"""A model of many equal layers, known from two shorter ones.

What is held at a given moment of a step is a sum over layers. With every further layer of the same kind it grows by the
same bytes, at each moment by its own number: as the first layer is computed backwards all gradients are there, as the
last one is, all activations. So each moment is prolonged by itself, and the peak is looked for among them afterwards.
Moments in the layers between the second and the last lie on a line between those, and cannot be the highest.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from ftk.memory.follow import Peak

EDGES = 3
"""Layers by which a model is known: the first, which may have no gradient to hand on, one within, and the last."""
LONGEST_PERIOD = 16
Kind = tuple[Any, ...]
"""What makes a layer the same as another."""


def kinds_of(layers: Sequence[Any], config: Any) -> list[Kind]:
    """What each layer is: its class, the shapes of its weights, and what the configuration lists of it."""
    text = config.get_text_config()
    listed = [value for value in vars(text).values() if isinstance(value, list) and len(value) == len(layers)]
    return [
        (
            type(layer).__name__,
            tuple((name, tuple(parameter.shape)) for name, parameter in layer.named_parameters()),
            *(str(value[number]) for value in listed),
        )
        for number, layer in enumerate(layers)
    ]


def short_lengths(kinds: Sequence[Kind]) -> tuple[int, int] | None:
    """Two shorter numbers of layers, a period apart, that end as the whole does; None where that spares nothing."""
    total = len(kinds)
    for period in range(1, LONGEST_PERIOD + 1):
        # Layers before the pattern begins, such as the dense ones of some mixtures of experts.
        prefix = next(start for start in range(total) if _repeats(kinds[start:], period))
        rest = (total - prefix) % period
        shorter = prefix + rest + period * max(1, -(-EDGES // period))
        if 2 * shorter + period < total:
            return shorter, shorter + period
    return None


def _repeats(kinds: Sequence[Kind], period: int) -> bool:
    return all(first == second for first, second in zip(kinds, kinds[period:], strict=False))


def shortened(config: Any, num_layers: int) -> Any:
    """The configuration with its first layers alone."""
    short = copy.deepcopy(config)
    text = short.get_text_config()
    total = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == total:
            setattr(text, name, value[:num_layers])
    text.num_hidden_layers = num_layers
    return short


def moment_of(number: int, num_layers: int) -> str:
    """The name of a layer's moment, the same in a longer model."""
    if number == num_layers - 1:
        return "last layer"
    return f"layer {number + 1}" if number < EDGES - 1 else "inner layers"


def prolonged(shorter: Mapping[str, Peak], longer: Mapping[str, Peak], *, periods: int) -> list[Peak]:
    """The peaks by moment of a model that is `periods` longer than the shorter one, which the other is by one."""
    found = []
    for moment in longer.keys() & shorter.keys():
        first, second = shorter[moment].by_kind, longer[moment].by_kind
        kinds = first.keys() | second.keys()
        by_kind = {k: first.get(k, 0) + periods * (second.get(k, 0) - first.get(k, 0)) for k in kinds}
        found.append(Peak(sum(by_kind.values()), by_kind, moment))
    return found
