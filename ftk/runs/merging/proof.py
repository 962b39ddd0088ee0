"""The proof of a merge: the merged model says what its base and the adapter beside it said.

One model is loaded after the other. Shapes: L tokens, V vocabulary.
"""

import gc
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ftk.core.errors import RunError

MAX_TOKENS = 512
BUILT_IN_TEXT = """\
The library opens at nine and closes at six, except on Fridays, when it stays open until eight. "Have you seen the map \
of the old town?" she asked. He had not, but he knew where to look: third shelf, left of the window.

Question: A train leaves at 14:05 and needs 2 hours and 50 minutes. When does it arrive?
Answer: At 16:55.

def mean(values: list[float]) -> float:
    return sum(values) / len(values)  # fails for an empty list

{"name": "Ada", "items": [{"sku": "A-17", "count": 3}], "paid": true}
Der Fluss war breit, und am anderen Ufer brannte noch Licht. La pluie avait cessé depuis une heure.
"""


@dataclass(frozen=True)
class Tolerance:
    """How far logits may lie apart, as shares of the reference's spread (its standard deviation)."""

    largest: float
    mean: float


TOLERANCES = {
    torch.float32: Tolerance(largest=1e-3, mean=1e-4),
    # A weight is rounded to 1/2048 and to 1/256 of itself; errors of many weights add up along the layers.
    torch.float16: Tolerance(largest=4e-2, mean=4e-3),
    torch.bfloat16: Tolerance(largest=0.25, mean=2.5e-2),
}
INT8_TOLERANCE = Tolerance(largest=1.0, mean=0.1)
"""Above eight-bit weights bitsandbytes rounds the inputs to eight bits too, which the merged model does not."""


@dataclass(frozen=True)
class Said:
    """What a model says of a text."""

    logits_LV: Tensor
    """float32, on the CPU."""
    perplexity: float
    tied: bool
    """Whether the head is the input embedding."""


@dataclass(frozen=True)
class Proof:
    """How far two models lie apart."""

    largest_difference: float
    """Of any logit."""
    mean_difference: float
    spread: float
    """Standard deviation of the reference's logits, on which tolerances are measured."""
    tolerance_largest: float
    tolerance_mean: float
    num_tokens: int
    num_other_greedy_tokens: int
    """Positions at which another token is the most probable one, though the reference preferred its own clearly."""
    reference_perplexity: float
    merged_perplexity: float

    @property
    def holds(self) -> bool:
        return (
            self.largest_difference <= self.tolerance_largest
            and self.mean_difference <= self.tolerance_mean
            and self.num_other_greedy_tokens == 0
        )

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "holds": self.holds}


def listen(load: Callable[[], Any], token_ids: Sequence[int]) -> Said:
    """Load a model, have it score a text, and let go of it."""
    model = load()
    try:
        with torch.no_grad():
            row = torch.tensor([list(token_ids)], device=model.get_input_embeddings().weight.device)
            logits_LV = model(input_ids=row, use_cache=False).logits[0].float().cpu()
        head = model.get_output_embeddings()
        tied = head is not None and _weight(head) is _weight(model.get_input_embeddings())
    finally:
        del model
        gc.collect()
    return Said(logits_LV, _perplexity(logits_LV, torch.tensor(list(token_ids))), tied)


def compare(reference: Said, merged: Said, *, tolerance: Tolerance) -> Proof:
    """How far the merged model lies from what it was made of.

    Raises:
        RunError: a logit is not finite, or the vocabularies differ.
    """
    expected, found = reference.logits_LV, merged.logits_LV
    if expected.shape != found.shape:
        raise RunError(
            f"the merged model has {found.shape[1]:,} logits a token, and its base with the adapter "
            f"{expected.shape[1]:,}"
        )
    if not bool(found.isfinite().all()):
        raise RunError("the merged model's logits are NaN or infinite. Its base or the adapter is broken")
    difference = (found - expected).abs()
    largest = float(difference.max())
    spread = float(expected.std())
    # Where the reference itself hardly prefers one token, a difference within tolerance may turn the choice.
    best = expected.topk(min(2, expected.shape[1]), dim=1).values
    clear = (best[:, 0] - best[:, -1]) > 2 * min(largest, tolerance.largest * spread)
    other = (expected.argmax(dim=1) != found.argmax(dim=1)) & clear
    return Proof(
        largest_difference=largest,
        mean_difference=float(difference.mean()),
        spread=spread,
        tolerance_largest=tolerance.largest * spread,
        tolerance_mean=tolerance.mean * spread,
        num_tokens=len(expected),
        num_other_greedy_tokens=int(other.sum()),
        reference_perplexity=reference.perplexity,
        merged_perplexity=merged.perplexity,
    )


def require(proof: Proof, *, out: Path) -> None:
    """Make sure that a proof holds.

    Raises:
        RunError: it does not.
    """
    if proof.holds:
        return
    raise RunError(
        f"the merged model is not its base with the adapter, so {out} was not written: logits differ by up to "
        f"{proof.largest_difference:.3g} (allowed {proof.tolerance_largest:.3g}), {proof.mean_difference:.3g} on "
        f"average (allowed {proof.tolerance_mean:.3g}), and {proof.num_other_greedy_tokens} of {proof.num_tokens} most "
        "probable tokens are others. Weights of fewer bits than the adapter was trained above may be the cause: try "
        "--base-precision, or keep the adapter beside its base"
    )


def _perplexity(logits_LV: Tensor, token_ids_L: Tensor) -> float:
    if len(token_ids_L) < 2:
        return float("nan")
    return math.exp(min(float(torch.nn.functional.cross_entropy(logits_LV[:-1], token_ids_L[1:])), 700.0))


def _weight(module: Any) -> Tensor:
    weight: Tensor = module.weight
    return weight
