"""What the routers of a mixture of experts did on a batch.

Shapes: N tokens of all rows, E experts, K experts a token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ftk.core.types import RouterLoad


def router_load(router_logits: Sequence[Tensor | None], real_N: Tensor, *, num_chosen: int) -> RouterLoad:
    """Counts and probabilities over layers and real tokens.

    With N tokens times layers, `E * sum(counts_E / N * probabilities_E / N)` is the balancing loss of Fedus et al. 2021
    (arXiv:2101.03961), equations 4 to 6, as transformers computes it.

    Args:
        router_logits: one [N, E] a layer with experts; None for layers without.
        real_N: bool, which tokens are no padding.
        num_chosen: experts a token goes to.
    """
    layers = [logits.reshape(real_N.numel(), -1) for logits in router_logits if logits is not None]
    mask_N = real_N.to(torch.float32)
    counts_E = torch.zeros(layers[0].shape[-1], device=mask_N.device)
    probabilities_E = torch.zeros_like(counts_E)
    for logits_NE in layers:
        weights_NE = torch.softmax(logits_NE.float(), dim=-1).to(mask_N.device)
        chosen_NK = weights_NE.detach().topk(num_chosen, dim=-1).indices
        counts_E.scatter_add_(0, chosen_NK.flatten(), mask_N.repeat_interleave(num_chosen))
        probabilities_E = probabilities_E + mask_N @ weights_NE
    return RouterLoad(counts_E, probabilities_E, mask_N.sum() * len(layers))
