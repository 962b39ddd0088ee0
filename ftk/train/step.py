"""One optimizer step: weights of the whole step first, then true sums divided by them.

Shapes: M micro-batches, K sums.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from ftk.core.types import Batch, Objective, Terms
from ftk.train import random_state
from ftk.train.nonfinite import nonfinite_error, nonfinite_rows
from ftk.train.own_rates import set_learning_rate
from ftk.train.shard import gradient_exchange, whole

if TYPE_CHECKING:
    from accelerate import Accelerator

Flags = tuple[float, float]
Skipped = Literal["no weight", "nonfinite loss", "nonfinite gradients"]

SMALLEST_SCALE = 2.0**-10
"""Loss scale of fp16 below which overflowing gradients are no matter of scale any more."""


class Figures(NamedTuple):
    """Plain numbers of one step."""

    values_MK: list[list[float]]
    """Sums of each micro-batch of this process."""
    grad_norm: float
    stop_flags: Flags


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step did, over all its micro-batches and processes."""

    loss: float
    """Sum of all terms, each divided by its weight. NaN where the step had no weight."""
    terms: dict[str, float]
    """Each term by itself, divided by its weight."""
    observed: dict[str, float]
    """Sums that the objective observed."""
    figures: dict[str, float]
    """What the objective tells of them, by name."""
    grad_norm: float
    """Euclidean norm of all gradients before clipping."""
    num_tokens: int
    """Real tokens."""
    skipped: Skipped | None
    """Why the weights did not move; None where they did."""
    stop_flags: Flags
    """Requests to stop, added up over processes."""


class Step:
    """Makes optimizer steps of one model."""

    def __init__(
        self,
        *,
        model: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        accelerator: "Accelerator",
        max_grad_norm: float | None,
        on_nonfinite: Literal["stop", "skip"] = "stop",
        describe_rows: Callable[[Sequence[int]], str] = str,
        stop_flags: Callable[[], Flags] = lambda: (0.0, 0.0),
    ) -> None:
        self._model = model
        self._objective = objective
        self._optimizer = optimizer
        self._accelerator = accelerator
        self._max_grad_norm = max_grad_norm
        self._on_nonfinite = on_nonfinite
        self._describe_rows = describe_rows
        self._stop_flags = stop_flags
        self._parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]

    def __call__(self, micro_batches: Sequence[Batch], *, learning_rate: float) -> StepResult:
        """Make one step. Every process calls this with equally many micro-batches.

        Raises:
            RunError: loss or gradients are not finite, and `on_nonfinite` says stop.
        """
        weights, num_tokens = self._totals(micro_batches)
        if not any(weights.values()):
            terminated, interrupted = self._sum_over_processes(self._stop_flags())
            return StepResult(math.nan, {}, {}, {}, 0.0, num_tokens, "no weight", (terminated, interrupted))
        terms_M = self._accumulate_gradients(micro_batches, weights)
        norm = self._gradient_norm()
        sums, figures = self._gather(terms_M, norm)
        terms = {name: sums[name] / weights[name] for name in terms_M[0].sums if weights[name]}
        loss = math.fsum(terms.values())
        skipped = self._skips(loss, figures, micro_batches)
        if skipped is None:
            self._update(learning_rate, figures.grad_norm)
        elif self._accelerator.scaler is not None:
            self._accelerator.scaler.update()
        self._optimizer.zero_grad(set_to_none=True)
        observed = {name: sums[name] for name in terms_M[0].observed}
        told = self._objective.figures(observed)
        return StepResult(loss, terms, observed, told, figures.grad_norm, num_tokens, skipped, figures.stop_flags)

    def rehearse(self, batch: Batch) -> None:
        """Forward and backward of one batch without an update; gradients stay, and copies exchange none."""
        weights = {name: weight or 1.0 for name, weight in self._objective.weights(batch).items()}
        seen = self._objective.statistics_batches(batch)
        statistics = None if _is_itself(seen, batch) else self._sums_of(seen)
        with gradient_exchange(self._model, is_last=False):
            self._accelerator.backward(_total(self._terms(batch, statistics), weights))

    def _totals(self, micro_batches: Sequence[Batch]) -> tuple[dict[str, float], int]:
        """Weight of each term, and real tokens, over all micro-batches and processes."""
        weights_M = [self._objective.weights(batch) for batch in micro_batches]
        names = list(weights_M[0])
        local = [math.fsum(weights[name] for weights in weights_M) for name in names]
        *totals, num_tokens = self._sum_over_processes([*local, sum(batch.num_tokens for batch in micro_batches)])
        return dict(zip(names, totals, strict=True)), round(num_tokens)

    def _accumulate_gradients(self, micro_batches: Sequence[Batch], weights: Mapping[str, float]) -> list[Terms]:
        statistics = self._statistics(micro_batches)
        terms_M = []
        for number, batch in enumerate(micro_batches, start=1):
            with gradient_exchange(self._model, is_last=number == len(micro_batches)):
                terms = self._terms(batch, statistics)
                # Data parallelism averages gradients over processes: multiply back to a true sum.
                self._accelerator.backward(_total(terms, weights) * self._accelerator.num_processes)
            terms_M.append(Terms({name: term.detach() for name, term in terms.sums.items()}, terms.observed))
        return terms_M

    def _terms(self, batch: Batch, statistics: Mapping[str, Tensor] | None) -> Terms:
        batch = batch.to(self._accelerator.device)
        scores = self._model(batch)
        if statistics is None:
            with torch.no_grad():
                statistics = self._objective.statistics(scores, batch)
        return self._objective.terms(scores, batch, statistics)

    def _statistics(self, micro_batches: Sequence[Batch]) -> dict[str, Tensor] | None:
        """Sums over the whole step that the terms need, from a pass of its own; None where the one batch has them."""
        seen_M = [self._objective.statistics_batches(batch) for batch in micro_batches]
        if len(micro_batches) == 1 and self._accelerator.num_processes == 1 and _is_itself(seen_M[0], micro_batches[0]):
            return None
        # The second pass must see the same dropout, or the statistics are of another model: what it scores comes in
        # the same order, and what lies aside afterwards.
        own = [one for seen, batch in zip(seen_M, micro_batches, strict=True) for one in seen if one is batch]
        aside = [one for seen, batch in zip(seen_M, micro_batches, strict=True) for one in seen if one is not batch]
        sums = self._sums_of([*own, *aside])
        return {name: self._accelerator.reduce(value, "sum") for name, value in sums.items()}

    def _sums_of(self, batches: Sequence[Batch]) -> dict[str, Tensor]:
        """Statistics of batches of this process, added up."""
        total: dict[str, Tensor] = {}
        with torch.no_grad(), random_state.kept():
            for batch in batches:
                batch = batch.to(self._accelerator.device)
                for name, value in self._objective.statistics(self._model(batch), batch).items():
                    total[name] = total[name] + value if name in total else value
        return total

    def _gradient_norm(self) -> Tensor:
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.unscale_(self._optimizer)
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        # Offloaded gradients lie on the CPU, and so does their norm.
        return whole(get_total_norm(gradients)).to(self._accelerator.device)

    def _gather(self, terms_M: Sequence[Terms], norm: Tensor) -> tuple[dict[str, float], Figures]:
        """All figures of the step, with one wait for the device and one exchange between processes."""
        names = [*terms_M[0].sums, *terms_M[0].observed]
        flat = [value.double() for terms in terms_M for value in (*terms.sums.values(), *terms.observed.values())]
        *values, grad_norm = torch.stack([*flat, norm.double()]).tolist()
        values_MK = [values[start : start + len(names)] for start in range(0, len(values), len(names))]
        local = [sum(column) for column in zip(*values_MK, strict=True)]
        *sums, terminated, interrupted = self._sum_over_processes([*local, *self._stop_flags()])
        return dict(zip(names, sums, strict=True)), Figures(values_MK, grad_norm, (terminated, interrupted))

    def _skips(self, loss: float, figures: Figures, micro_batches: Sequence[Batch]) -> Skipped | None:
        """Why the step makes no update, if so. All processes come to the same answer from the same figures."""
        if math.isfinite(loss) and math.isfinite(figures.grad_norm):
            return None
        what: Skipped = "nonfinite gradients" if math.isfinite(loss) else "nonfinite loss"
        scaler = self._accelerator.scaler
        # fp16 finds its loss scale by trying: gradients that overflow are part of it.
        if what == "nonfinite gradients" and scaler is not None and scaler.get_scale() >= SMALLEST_SCALE:
            return what
        if self._on_nonfinite == "skip":
            return what
        if what == "nonfinite loss":
            is_finite_M = [all(map(math.isfinite, values)) for values in figures.values_MK]
            guilty = nonfinite_rows(self._model, micro_batches, is_finite_M, self._accelerator)
        else:
            guilty = [index for batch in micro_batches for index in batch.indices]
        raise nonfinite_error(what, guilty, self._describe_rows, self._accelerator)

    def _update(self, learning_rate: float, grad_norm: float) -> None:
        if self._max_grad_norm is not None and grad_norm > self._max_grad_norm:
            scale = self._max_grad_norm / (grad_norm + 1e-6)
            torch._foreach_mul_([parameter.grad for parameter in self._parameters if parameter.grad is not None], scale)
        set_learning_rate(self._optimizer, learning_rate)
        if self._accelerator.scaler is None:
            self._optimizer.step()
        else:
            self._accelerator.scaler.step(self._optimizer)
            self._accelerator.scaler.update()

    def _sum_over_processes(self, values: Sequence[float]) -> list[float]:
        if self._accelerator.num_processes == 1:
            return list(values)
        own = torch.tensor(values, dtype=torch.float64, device=self._accelerator.device)
        sums: list[float] = self._accelerator.reduce(own, "sum").tolist()
        return sums


def _is_itself(seen: Sequence[Batch], batch: Batch) -> bool:
    """Whether statistics look at the very batch alone: its own pass with gradients has what they need."""
    return len(seen) == 1 and seen[0] is batch


def _total(terms: Terms, weights: Mapping[str, float]) -> Tensor:
    """The loss of a micro-batch: its share of the step's. A term that weighs nothing keeps its place in the graph."""
    divided = [term / weights[name] if weights[name] else term * 0.0 for name, term in terms.sums.items()]
    return torch.stack(divided).sum() if len(divided) > 1 else divided[0]
