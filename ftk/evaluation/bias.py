"""Bias as a measure: what changes between rows that differ in one attribute alone, such as a name, a gender, an origin.

Source: the design of counterfactual groups follows Huang et al. 2020 (arXiv:1911.03064), who compare what a model says
of texts in which one attribute is replaced; here the loss of the given answers and the greedy answers are compared.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from ftk.core.config import Section
from ftk.core.json_values import finite

LOSS_GAP, ANSWERS_DIFFER, ATTRIBUTE_LOSS = "bias_loss_gap", "bias_answers_differ", "bias_loss"


class Bias(Section):
    """Rows that come in groups, within which one attribute alone differs."""

    source: str
    """A file, folder or hub data set; its rows are of any format of conversations, with three columns more.

    `group` tells which rows belong together; `attribute` is what differs, such as `female`; `words`, where it is there,
    lists the words that stand for it in the row, in one order for all rows of a group: `[Maria, she]`, `[Mario, he]`.
    Without it the attribute itself is that word."""
    format: str = "auto"
    """As of a data source."""
    columns: dict[str, str] = Field(default_factory=dict)
    """As of a data source; also for `group`, `attribute` and `words`, such as `{group: pair, attribute: gender}`."""
    max_groups: Annotated[int, Field(gt=0)] | None = None
    """Groups that are measured, from the beginning of the file; by default all."""


@dataclass(frozen=True)
class BiasRow:
    """One row of a group, and what the model does with it."""

    source: str
    row: int
    group: str
    attribute: str
    words: tuple[str, ...]
    """What stands for the attribute in this row."""
    loss: float
    """Of the given answer, in nats a token."""
    answer: str
    """What the model says, greedily."""

    @property
    def abstracted(self) -> str:
        """The answer without the attribute."""
        return abstracted(self.answer, self.words)

    def as_json(self) -> str:
        """One line of a file."""
        record = {
            "source": self.source,
            "row": self.row,
            "group": self.group,
            "attribute": self.attribute,
            "loss": self.loss,
            "answer": self.answer,
            "abstracted": self.abstracted,
        }
        return json.dumps(finite(record), ensure_ascii=False, allow_nan=False)


def abstracted(answer: str, words: Sequence[str]) -> str:
    """`answer` with each of `words` replaced by its number, white space at the ends apart.

    Words are whole ones, upper and lower case alike; longer ones go first, so that `Ann` does not tear `Ann Lee`.
    """
    places = {word.casefold(): place for place, word in reversed(list(enumerate(words))) if word}
    if not places:
        return answer.strip()
    ordered = "|".join(re.escape(word) for word in sorted(places, key=len, reverse=True))
    pattern = re.compile(rf"(?<!\w)(?:{ordered})(?!\w)", re.IGNORECASE)
    return pattern.sub(lambda match: f"<{places.get(match[0].casefold(), 0)}>", answer).strip()


def loss_gap(losses_by_group: Mapping[str, Sequence[float]]) -> float:
    """Mean over groups of the largest loss less the smallest, in nats a token; of pairs the mean absolute gap."""
    gaps = [max(losses) - min(losses) for losses in losses_by_group.values()]
    return math.fsum(gaps) / len(gaps) if gaps else math.nan


def share_that_differs(answers_by_group: Mapping[str, Sequence[str]]) -> float:
    """Share of the groups whose answers are not all the same, 0 to 1."""
    differ = [len(set(answers)) > 1 for answers in answers_by_group.values()]
    return sum(differ) / len(differ) if differ else math.nan


def bias_figures(rows: Sequence[BiasRow]) -> dict[str, float]:
    """`bias_loss_gap` and `bias_answers_differ` over groups, `bias_loss[...]` as the mean over an attribute's rows."""
    losses: dict[str, list[float]] = {}
    answers: dict[str, list[str]] = {}
    by_attribute: dict[str, list[float]] = {}
    for row in rows:
        losses.setdefault(row.group, []).append(row.loss)
        answers.setdefault(row.group, []).append(row.abstracted)
        by_attribute.setdefault(row.attribute, []).append(row.loss)
    return {
        LOSS_GAP: loss_gap(losses),
        ANSWERS_DIFFER: share_that_differs(answers),
        **{f"{ATTRIBUTE_LOSS}[{name}]": math.fsum(some) / len(some) for name, some in sorted(by_attribute.items())},
    }
