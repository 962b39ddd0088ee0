"""`train` and `weight` of a message: whether an answer is learned, and how much it weighs.

OpenAI's `weight` is 0 or 1; any number between them is taken here. A message keeps `train` where the row says it, and
`weight` where it is a fraction.
"""

from collections.abc import Mapping
from typing import Any

from ftk.core.types import Message


def read_marks(value: Mapping[str, Any]) -> Message:
    """`train` and `weight` as messages keep them; empty where the row says nothing.

    Raises:
        ValueError: they say no weight, two different things, or that what is no answer be learned.
    """
    train, weight = value.get("train"), value.get("weight")
    if train is None and weight is None:
        return {}
    if train is not None and not isinstance(train, bool):
        raise ValueError(f"train is {train!r}, expected true or false")
    if weight is not None and (isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 <= weight <= 1):
        raise ValueError(f"weight is {weight!r}, expected a number from 0 to 1")
    if train is not None and weight is not None and train != (weight > 0):
        raise ValueError(f"train is {str(train).lower()} and weight {weight:g}, which say different things")
    learned = train if weight is None else weight > 0
    fraction = {"weight": float(weight)} if weight is not None and 0 < weight < 1 else {}
    return {"train": learned, **fraction}


def answer_weight(message: Message) -> float:
    """Loss weight of an answer's tokens, 0 to 1."""
    return 0.0 if message.get("train") is False else float(message.get("weight", 1.0))
