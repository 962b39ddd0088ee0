"""JSON validity: the answer parses."""

import json
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from ftk.core.config import Section


def parse_json(text: str) -> Any:
    """The value that a JSON text stands for.

    Raises:
        ValueError: it is not JSON by RFC 8259: `NaN`, `Infinity`, and anything before or after the value included.
    """

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        # Decimal, because int refuses more than 4,300 digits, and a model may write them.
        return json.loads(text, parse_constant=refuse, parse_int=Decimal)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def json_valid(answer: str) -> float:
    """1 where the whole answer is one JSON value, else 0."""
    try:
        parse_json(answer)
    except ValueError:
        return 0.0
    return 1.0


class JsonValid(Section):
    """The share of answers that are JSON."""

    name: Literal["json_valid"] = "json_valid"
    """`json_valid`: the whole answer parses as JSON."""

    def score(
        self, answers: Sequence[str], references: Sequence[str], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[float]]:
        """1 or 0 for each row."""
        return {self.name: [json_valid(answer) for answer in answers]}
