"""A metric of the user's own, named as `module:function`."""

import math
from collections.abc import Callable, Mapping, Sequence
from numbers import Real
from typing import Annotated, Any

from pydantic import Field

from ftk.core.config import Section
from ftk.core.errors import RunError
from ftk.core.named import load_function


class CustomMetric(Section):
    """Your own `function(answer: str, reference: str, row: Mapping) -> float | bool`."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")]
    """`module:function`; the module is looked for in the working directory too."""

    def load(self) -> Callable[[str, str, Mapping[str, Any]], float | bool]:
        """The function itself.

        Raises:
            RecipeError: there is no such module or function.
        """
        return load_function(self.name, purpose="a metric: function(answer, reference, row) -> float or bool")

    def score(
        self, answers: Sequence[str], references: Sequence[str], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[float]]:
        """What the function says of each row.

        Raises:
            RunError: the function raised, or returned something else than a number.
        """
        function = self.load()
        rows = enumerate(zip(answers, references, columns, strict=True), start=1)
        return {self.name: [self._value(function, number, *row) for number, row in rows]}

    def _value(
        self, function: Callable[..., float | bool], number: int, answer: str, reference: str, row: Mapping[str, Any]
    ) -> float:
        try:
            value: object = function(answer, reference, row)
        except Exception as error:
            raise RunError(
                f"metric {self.name} failed on evaluation row {number}: {type(error).__name__}: {error}"
            ) from error
        if not isinstance(value, Real) or not math.isfinite(value):
            raise RunError(f"metric {self.name} returned {value!r} for evaluation row {number}; expected a number")
        return float(value)
