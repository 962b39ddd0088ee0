"""The balancing loss of a mixture of experts, exact over any split of an optimizer step.

Shapes: E experts.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from ftk.core.types import Batch, RouterLoad


def balance_loss(shares_E: Tensor, probabilities_E: Tensor) -> Tensor:
    """Number of experts times the sum over experts of share chosen and probability; 1 times k where balanced.

    Args:
        shares_E: times each expert was chosen, a token and layer; no gradient.
        probabilities_E: router probability of each expert, summed over what the result is a sum of.

    Source: Fedus et al. 2021 (arXiv:2101.03961), equation 4, for the k experts of a token.
    """
    return len(shares_E) * (shares_E * probabilities_E).sum()


def router_statistics(load: RouterLoad, batch: Batch) -> dict[str, Tensor]:
    """How often each expert was chosen: the loss is a product of two means, so one of them must be known for the step.

    A batch that only keeps processes in step counts nothing.
    """
    counted = float(batch.num_tokens > 0)
    return {"router_counts": load.counts_E.detach() * counted, "router_tokens": load.num_tokens.detach() * counted}


def router_term(load: RouterLoad, batch: Batch, statistics: Mapping[str, Tensor]) -> Tensor:
    """The balancing loss of a batch as a sum over its tokens, to be divided by the tokens of the whole step."""
    shares_E = statistics["router_counts"] / statistics["router_tokens"].clamp_min(1)
    # Layers share one mean, as transformers takes it: a token's probabilities are averaged over them.
    per_layer = batch.num_tokens / load.num_tokens.clamp_min(1)
    return balance_loss(shares_E.to(torch.float32), load.probabilities_E * per_layer)
