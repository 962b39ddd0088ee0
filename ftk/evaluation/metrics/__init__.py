"""Metrics of generated answers: one file each, joined here."""

from typing import Annotated

from ftk.core.config import ByName
from ftk.evaluation.metrics.custom import CustomMetric
from ftk.evaluation.metrics.edit_similarity import EditSimilarity
from ftk.evaluation.metrics.exact_match import ExactMatch
from ftk.evaluation.metrics.infilling_exact_match import InfillingExactMatch
from ftk.evaluation.metrics.infilling_pass_at_1 import InfillingPassAt1
from ftk.evaluation.metrics.json_fields import JsonFields
from ftk.evaluation.metrics.json_valid import JsonValid
from ftk.evaluation.metrics.rouge_l import RougeL
from ftk.evaluation.metrics.squad import F1, ExactMatchSquad

Metric = Annotated[
    ExactMatch
    | ExactMatchSquad
    | F1
    | RougeL
    | EditSimilarity
    | JsonValid
    | JsonFields
    | InfillingExactMatch
    | InfillingPassAt1
    | CustomMetric,
    ByName(),
]
"""How answers are judged; a plain word names it, and `my_module:my_metric` is a function of your own."""
