"""The `evaluation` section of a recipe."""

from collections import Counter
from typing import Annotated, Self

from pydantic import Field, model_validator

from ftk.core.config import OneOrMore, Section
from ftk.core.interval import Interval
from ftk.evaluation.bias import Bias
from ftk.evaluation.metrics import Metric
from ftk.evaluation.passkey import Passkey


class EarlyStopping(Section):
    """Stop when the held-out loss no longer falls."""

    patience: Annotated[int, Field(gt=0)] = 3
    """Evaluations in a row without a new best before training stops."""
    min_delta: Annotated[float, Field(ge=0)] = 0.0
    """Nats a token by which the loss must fall to count as a new best."""


class EvaluationSettings(Section):
    """How the model is measured, on `data.eval`, before, during and after training."""

    every: Interval | None = Interval(epochs=1)
    """How often the held-out loss is measured while training; null measures before and after alone."""
    metrics: Annotated[tuple[Metric, ...], OneOrMore()] = ()
    """Metrics of generated answers, before and after: `exact_match`, `f1`, `rouge_l`, ... or `module:function`.

    Answers are judged by the rows' own, under `task: preference` by the chosen ones."""
    shots: Annotated[tuple[Annotated[int, Field(ge=0)], ...], OneOrMore()] = (0,)
    """Training rows shown in the prompt before training, as the figure to beat; the tuned model is asked without."""
    by: str | None = None
    """A column; metrics are also given for each of its values, such as rows with `unseen` words."""
    max_new_tokens: Annotated[int, Field(gt=0)] = 256
    """Longest generated answer in tokens."""
    max_rows: Annotated[int, Field(gt=0)] | None = None
    """Rows on which answers are generated, evenly spread over all; the loss is always over all rows."""
    early_stopping: EarlyStopping | None = None
    """Stop when the held-out loss no longer falls; null trains to the end."""
    by_position: bool = False
    """Whether perplexity is also given by how far into a row tokens stand, in stretches that double in length."""
    passkey: Passkey | None = None
    """Whether the model finds five digits in long texts of filler, by length and depth; null does not ask."""
    max_forgetting: Annotated[float, Field(ge=0)] = 0.1
    """Rise of the loss on a built-in general text, in nats a token, above which forgetting is pointed out."""
    without_context: bool = True
    """Whether rows with retrieved documents are also asked without them, as `exact_match@no_context` and the like.

    Finetuning gives form, retrieval gives facts: the difference tells what the model reads and what it knows."""
    bias: Bias | None = None
    """Rows that differ in one attribute, such as a name or a gender, by which bias is measured before and after.

    `bias_loss_gap` is how far the losses within a group lie apart, in nats a token, `bias_answers_differ` the share of
    groups whose greedy answers differ once the attribute is taken out, `bias_loss[...]` the mean loss by attribute."""
    before: bool = True
    """Whether the model is also measured before training."""

    @model_validator(mode="after")
    def _each_metric_once(self) -> Self:
        # Their figures would be stored under one name, the last over the first.
        repeated = [name for name, count in Counter(metric.name for metric in self.metrics).items() if count > 1]
        if repeated:
            raise ValueError(f"metrics names {', '.join(repeated)} more than once")
        return self
