"""Metrics of generated answers: one file each, joined here."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Discriminator, Tag

from ftk.evaluation.metrics.custom import CustomMetric
from ftk.evaluation.metrics.exact_match import ExactMatch
from ftk.evaluation.metrics.json_fields import JsonFields
from ftk.evaluation.metrics.json_valid import JsonValid
from ftk.evaluation.metrics.rouge_l import RougeL
from ftk.evaluation.metrics.squad import ExactMatchSquad, F1


def _tag(value: Any) -> str | None:
    """Which member a plain word, a mapping or a member itself belongs to."""
    name = value.get("name") if isinstance(value, Mapping) else getattr(value, "name", value)
    if not isinstance(name, str):
        return None
    return "module:function" if ":" in name else name


Metric = Annotated[
    Annotated[ExactMatch, Tag("exact_match")]
    | Annotated[ExactMatchSquad, Tag("exact_match_squad")]
    | Annotated[F1, Tag("f1")]
    | Annotated[RougeL, Tag("rouge_l")]
    | Annotated[JsonValid, Tag("json_valid")]
    | Annotated[JsonFields, Tag("json_fields")]
    | Annotated[CustomMetric, Tag("module:function")],
    Discriminator(_tag),
]
"""How answers are judged; a plain word names it, and `my_module:my_metric` is a function of your own."""
