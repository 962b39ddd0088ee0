"""What all preference losses share: sums of completions, the mix with likelihood, statistics and figures.

Shapes: B rows, L positions, N examples, K completions of an example, P pairs.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftk.core.types import REFERENCE_LOGPS, Batch, Terms, TokenScores
from ftk.numerics.completions import completion_lengths, completion_sums
from ftk.objectives.preference.compared import PairLoss, Pairs, SingleLoss, Singles
from ftk.objectives.router import router_statistics, router_term

CHOSEN, REJECTED = 0, 1
"""Completions of a pair."""
OWN, ASIDE = 0, 1
"""Reference log-probabilities of a completion by itself: its own, and of the one that belongs to another prompt."""


class PreferenceObjective:
    """A preference loss, and where it is asked for the likelihood of chosen completions and the balance of experts.

    The term `preference` weighs examples, `sft` the tokens of chosen completions, `router` tokens.
    """

    def __init__(
        self, loss: PairLoss | SingleLoss, *, sft_weight: float = 0.0, router_loss_weight: float = 0.0
    ) -> None:
        self.loss = loss
        self.sft_weight = sft_weight
        self.router_loss_weight = router_loss_weight

    def weights(self, batch: Batch) -> dict[str, float]:
        weights = {"preference": float(batch.num_examples)}
        if self.sft_weight > 0:
            weights["sft"] = float(self._chosen_tokens(batch))
        if self.router_loss_weight > 0:
            weights["router"] = float(batch.num_tokens)
        return weights

    def statistics_batches(self, batch: Batch) -> Sequence[Batch]:
        """What lies aside, for a loss with a baseline; the batch itself for the balance of experts."""
        seen = [batch] if self.router_loss_weight > 0 else []
        if self.loss.rows == "unpaired":
            if batch.aside is None:
                raise ValueError("a batch of completions by themselves has no completions of other prompts aside")
            seen.append(batch.aside)
        return seen

    def statistics(self, scores: TokenScores, batch: Batch) -> dict[str, Tensor]:
        # Only what is trained on has something aside.
        if self.loss.rows == "unpaired" and batch.aside is None:
            logps_N = _sums(scores.logps_BL, batch, 1)[:, OWN]
            log_ratios_N = logps_N.detach() - _reference(scores.logps_BL, batch, 2)[:, ASIDE]
            return {"log_ratios_aside": log_ratios_N.sum(), "num_aside": logps_N.new_tensor(batch.num_examples)}
        return router_statistics(scores.router, batch) if scores.router is not None else {}

    def terms(self, scores: TokenScores, batch: Batch, statistics: Mapping[str, Tensor]) -> Terms:
        if self.loss.rows == "pairs":
            sums, observed = self._of_pairs(self.loss, scores, batch)
        else:
            sums, observed = self._of_singles(self.loss, scores, batch, statistics)
        if self.sft_weight == 0:
            del sums["sft"]
        if self.router_loss_weight > 0 and scores.router is not None:
            sums["router"] = self.router_loss_weight * router_term(scores.router, batch, statistics)
        return Terms(sums, {name: value.detach() for name, value in observed.items()})

    def figures(self, observed: Mapping[str, float]) -> dict[str, float]:
        """Means over completions: rewards, log-probabilities (sums over tokens, in nats), accuracy over pairs, and KL.

        A pair of equal rewards counts as half right, so that accuracy starts at a half. Nothing is told of a side
        without completions.
        """
        found: dict[str, float] = {}
        counts = {side: observed.get(f"num_{side}", 0.0) for side in ("chosen", "rejected")}
        for side, count in counts.items():
            if count:
                found[f"rewards_{side}"] = observed[f"rewards_{side}_sum"] / count
                found[f"logps_{side}"] = observed[f"logps_{side}_sum"] / count
        if all(counts.values()):
            found["rewards_margin"] = found["rewards_chosen"] - found["rewards_rejected"]
        if "num_right" in observed and counts["chosen"]:
            found["preference_accuracy"] = observed["num_right"] / counts["chosen"]
        if "kl_sum" in observed and any(counts.values()):
            found["kl"] = observed["kl_sum"] / sum(counts.values())
        return found

    def _of_pairs(
        self, loss: PairLoss, scores: TokenScores, batch: Batch
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        logps_NK = _sums(scores.logps_BL, batch, 2)
        ref_NK = _reference(scores.logps_BL, batch, 2) if loss.needs_reference else torch.zeros_like(logps_NK)
        lengths_NK = _lengths(batch, 2).to(logps_NK)
        pairs = Pairs(*logps_NK.unbind(1), *ref_NK.unbind(1), *lengths_NK.unbind(1))
        sums = {"preference": loss.losses(pairs).sum(), "sft": -self.sft_weight * pairs.chosen_P.sum()}
        with torch.no_grad():
            chosen_P, rejected_P = loss.rewards(pairs)
            right_P = torch.where(chosen_P == rejected_P, 0.5, (chosen_P > rejected_P).to(chosen_P))
            count = torch.full_like(right_P.sum(), batch.num_examples)
            observed = {
                "num_chosen": count,
                "num_rejected": count,
                "rewards_chosen_sum": chosen_P.sum(),
                "rewards_rejected_sum": rejected_P.sum(),
                "logps_chosen_sum": pairs.chosen_P.sum(),
                "logps_rejected_sum": pairs.rejected_P.sum(),
                "num_right": right_P.sum(),
            }
            if loss.needs_reference:
                observed["kl_sum"] = (logps_NK - ref_NK).sum()
        return sums, observed

    def _of_singles(
        self, loss: SingleLoss, scores: TokenScores, batch: Batch, statistics: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        logps_N = _sums(scores.logps_BL, batch, 1)[:, OWN]
        desirable_N = batch.columns["desirable"][: batch.num_examples] > 0
        singles = Singles(
            logps_N=logps_N,
            ref_logps_N=_reference(scores.logps_BL, batch, 2)[:, OWN],
            lengths_N=_lengths(batch, 1)[:, OWN].to(logps_N),
            desirable_N=desirable_N,
            baseline=statistics["log_ratios_aside"] / statistics["num_aside"].clamp_min(1),
        )
        likelihood = torch.where(desirable_N, logps_N, logps_N * 0.0).sum()
        sums = {"preference": loss.losses(singles).sum(), "sft": -self.sft_weight * likelihood}
        with torch.no_grad():
            rewards_N = loss.rewards(singles)
            chosen_N, rejected_N = desirable_N.to(logps_N), (~desirable_N).to(logps_N)
            observed = {
                "num_chosen": chosen_N.sum(),
                "num_rejected": rejected_N.sum(),
                "rewards_chosen_sum": (rewards_N * chosen_N).sum(),
                "rewards_rejected_sum": (rewards_N * rejected_N).sum(),
                "logps_chosen_sum": (logps_N * chosen_N).sum(),
                "logps_rejected_sum": (logps_N * rejected_N).sum(),
                # The same for all examples of the step: their mean is it again.
                "kl_sum": batch.num_examples * singles.baseline.clamp_min(0),
            }
        return sums, observed

    def _chosen_tokens(self, batch: Batch) -> int:
        if self.loss.rows == "pairs":
            return int(_lengths(batch, 2)[:, CHOSEN].sum())
        desirable_N = batch.columns["desirable"][: batch.num_examples] > 0
        return int(_lengths(batch, 1)[desirable_N, OWN].sum())


def _sums(logps_BL: Tensor, batch: Batch, num_branches: int) -> Tensor:
    """Log-probability of each completion, shape [N, K]; none in a batch that only keeps processes in step."""
    if batch.num_examples == 0:
        # Nothing, but it still hangs on every trained parameter.
        return logps_BL.sum() * logps_BL.new_zeros(0, num_branches)
    return completion_sums(logps_BL, batch, num_branches=num_branches)


def _lengths(batch: Batch, num_branches: int) -> Tensor:
    if batch.num_examples == 0:
        return batch.input_ids_BL.new_zeros(0, num_branches)
    return completion_lengths(batch, num_branches=num_branches)


def _reference(logps_BL: Tensor, batch: Batch, num_columns: int) -> Tensor:
    """Log-probability of each completion by the model as the training began, shape [N, K]."""
    if batch.num_examples == 0:
        return logps_BL.new_zeros(0, num_columns)
    return batch.columns[REFERENCE_LOGPS].to(logps_BL)
