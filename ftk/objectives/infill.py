"""Infilling: the likelihood of texts whose middle was moved to the end, so that a model learns to fill holes.

Source: Bavarian et al. 2022 (arXiv:2207.14255).
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from ftk.core.config import Section
from ftk.objectives.cpt import CptObjective


class Infill(Section):
    """Learn to fill holes in code or text, from the files themselves.

    All text is learned, in prefix, suffix and middle, and so is the end of the middle; the tokens that mark prefix,
    suffix and middle are given. What is not rearranged is learned left to right, as under `cpt`."""

    name: Literal["infill"] = "infill"
    """`infill`: texts with the middle moved to the end."""
    fim_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the texts that are rearranged; the rest is learned left to right, which keeps that ability."""
    spm_rate: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the rearranged texts with the suffix first (SPM); the others have the prefix first (PSM).

    DeepSeek-Coder and Qwen-Coder have seen PSM alone."""
    cut: Literal["character", "token", "line", "syntax"] = "character"
    """Where a middle begins and ends: between characters, tokens or lines, or with a node of Python's syntax.

    Characters are customary for whoever types within a line, lines for whole lines. Under `syntax`, texts that are no
    Python are cut at lines."""
    longest_middle: Annotated[int, Field(gt=0)] | None = None
    """Most characters, tokens or lines of a middle, in the units of `cut`; null sets no bound, and a middle is then a
    third of its text on average. Short ones suit completion in an editor. Not for `syntax`, whose nodes are as long as
    they are."""
    level: Literal["context", "document"] = "context"
    """`context` cuts documents into pieces of `data.max_length` and rearranges each within itself, so that none is
    broken; `document` rearranges documents and then cuts those that are longer, in which prefix, suffix and middle may
    come to lie in different pieces."""
    context_loss_weight: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Loss weight of prefix and suffix; middles, their ends and texts that are not rearranged weigh 1. Less than 1 has
    more of the training go into middles, which are the smaller part of a text. The held-out loss is weighted likewise:
    compare runs of different weights by perplexity or bits per byte, which are of all text."""
    router_loss_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the balancing loss of a mixture of experts; 0 leaves it out.

    By default the model's own configuration decides, which for most released models leaves it out."""

    @model_validator(mode="after")
    def _nodes_have_their_length(self) -> Self:
        if self.cut == "syntax" and self.longest_middle is not None:
            raise ValueError("longest_middle does not go with cut: syntax, whose nodes are as long as they are")
        return self

    @property
    def rows(self) -> Literal["texts"]:
        """What the task learns from."""
        return "texts"

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of the model as the training began take part."""
        return False

    def objective(self, *, router_loss_weight: float = 0.0) -> CptObjective:
        """The loss; `router_loss_weight` is what the model's configuration asks for, unless the recipe says it."""
        weight = self.router_loss_weight
        return CptObjective(router_loss_weight=router_loss_weight if weight is None else weight)
