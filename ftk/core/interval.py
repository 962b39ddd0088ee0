"""How often something happens: a number of optimizer steps, or of epochs."""

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema


class Interval(BaseModel):
    """`200` is every 200 optimizer steps, `1 epoch` or `0.5 epochs` counts passes over the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    steps: int | None = None
    epochs: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return {"steps": value}
        if isinstance(value, str):
            match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(steps?|epochs?)\s*", value)
            if match and float(match[1]) > 0:
                if match[2].startswith("epoch"):
                    return {"epochs": float(match[1])}
                if float(match[1]).is_integer():
                    return {"steps": int(float(match[1]))}
        elif isinstance(value, dict | cls):
            return value
        raise ValueError("expected a number of optimizer steps such as 200, or a number of epochs such as '1 epoch'")

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("an interval is either steps or epochs")
        return self

    @model_serializer
    def _write(self) -> int | str:
        if self.epochs is None:
            return self.steps or 0
        return f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}"

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "anyOf": [
                {"type": "integer", "minimum": 1},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(steps?|epochs?)\s*$"},
            ]
        }

    def in_steps(self, steps_per_epoch: int | None) -> int:
        """The interval in optimizer steps, at least 1.

        Raises:
            ValueError: it counts epochs, and the data has no known length.
        """
        if self.epochs is None:
            return self.steps or 1
        if steps_per_epoch is None:
            raise ValueError("epochs cannot be counted: the data has no known length. Give a number of steps")
        return max(1, round(self.epochs * steps_per_epoch))

    def is_due(self, step: int, steps_per_epoch: int | None) -> bool:
        """Whether it falls on optimizer step `step`, counted from 1."""
        return step % self.in_steps(steps_per_epoch) == 0
