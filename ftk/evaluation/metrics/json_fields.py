"""Per-field match: which fields of a JSON object are right."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ftk.core.config import Section
from ftk.core.errors import DataError
from ftk.evaluation.metrics.json_valid import parse_json


def same_json(first: Any, second: Any) -> bool:
    """Whether two parsed JSON values are the same: 1 is 1.0, but true is not 1; the order of keys does not count."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        return first.keys() == second.keys() and all(same_json(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(same_json, first, second))
    if isinstance(first, bool) or isinstance(second, bool):
        return first is second
    return bool(first == second)


def json_fields(answer: str, reference: Mapping[str, Any]) -> dict[str, bool]:
    """For each field of the reference, whether the answer has it with the same value; all false if it is no object."""
    try:
        found = parse_json(answer)
    except ValueError:
        found = None
    if not isinstance(found, Mapping):
        found = {}
    return {field: field in found and same_json(found[field], value) for field, value in reference.items()}


class JsonFields(Section):
    """The share of the reference's fields that the answer has right, and the share of rows for each field."""

    name: Literal["json_fields"] = "json_fields"
    """`json_fields`: share of the reference's fields that are equal, and `json_fields.city` for each field."""

    def score(
        self, answers: Sequence[str], references: Sequence[str], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[float]]:
        """0 to 1 for each row under `json_fields`; 1 or 0 under `json_fields.FIELD`, NaN where a row lacks it.

        Raises:
            DataError: a reference is not a JSON object with at least one field.
        """
        expected = [_parsed_reference(text, number) for number, text in enumerate(references, start=1)]
        matches = [json_fields(*pair) for pair in zip(answers, expected, strict=True)]
        scores: dict[str, list[float]] = {self.name: [sum(match.values()) / len(match) for match in matches]}
        for field in dict.fromkeys(field for match in matches for field in match):
            scores[f"{self.name}.{field}"] = [float(match.get(field, math.nan)) for match in matches]
        return scores


def _parsed_reference(text: str, number: int) -> Mapping[str, Any]:
    try:
        parsed = parse_json(text)
    except ValueError:
        parsed = None
    if not isinstance(parsed, Mapping) or not parsed:
        raise DataError(
            f"json_fields compares the fields of JSON objects, and the reference answer of evaluation row {number} "
            f"is none: {text[:80]!r}. Take exact_match or f1 for such rows"
        )
    return parsed
