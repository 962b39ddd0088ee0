"""Values that strict JSON can hold."""

import math
from collections.abc import Mapping


def finite(value: object) -> object:
    """The same with null for every number that is not finite, which JSON has no word for; keys become text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
