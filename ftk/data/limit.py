"""How much of a source is taken: so many rows, or so many tokens."""

import re
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, model_serializer, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

_LIMIT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kKMGB]?)\s*(rows?|tokens?)\s*")
_FACTORS = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9}


class Limit(BaseModel):
    """`1000` is so many rows or documents, `2M tokens` so many tokens."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: int | None = None
    tokens: int | None = None

    @model_validator(mode="before")
    @classmethod
    def _read(cls, value: Any) -> Any:
        if isinstance(value, dict | cls):
            return value
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return {"rows": value}
        match = _LIMIT.fullmatch(value) if isinstance(value, str) else None
        number = float(match[1]) * _FACTORS[match[2]] if match else 0.0
        if match is None or number < 1 or not number.is_integer():
            raise ValueError("expected a number of documents such as 1000, or of tokens such as '500000 tokens'")
        return {"tokens" if match[3].startswith("token") else "rows": int(number)}

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.rows is None) == (self.tokens is None):
            raise ValueError("a limit is either of rows or of tokens")
        return self

    @model_serializer
    def _write(self) -> int | str:
        return self.rows if self.rows is not None else str(self)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "anyOf": [
                {"type": "integer", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*[kKMGB]?\s*(rows?|tokens?)\s*$"},
            ]
        }

    def __str__(self) -> str:
        return f"{self.rows} rows" if self.rows is not None else f"{self.tokens} tokens"
