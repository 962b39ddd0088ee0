"""Choosing the next token.

Shapes: B rows, V vocabulary.
"""

import torch
from torch import Tensor


def choose(logits_BV: Tensor, uniform_B: Tensor | None, *, temperature: float, top_p: float) -> Tensor:
    """The next token of each row, int64 [B]: the most probable one at temperature 0, else drawn.

    `uniform_B` holds one number in [0, 1) a row, at which the cumulated probabilities are read, the most probable token
    first; the draw of a row therefore does not depend on the rows beside it. `top_p` keeps the fewest tokens that
    together have at least this probability.

    Source: Holtzman et al. 2020 (arXiv:1904.09751), section 3.1, for `top_p`.
    """
    if temperature == 0 or uniform_B is None:
        return logits_BV.argmax(dim=-1)
    probabilities_BV, tokens_BV = torch.softmax(logits_BV.double() / temperature, dim=-1).sort(
        descending=True, stable=True
    )
    cumulated_BV = probabilities_BV.cumsum(dim=-1)
    kept_BV = cumulated_BV - probabilities_BV < top_p
    total_B = torch.where(kept_BV, probabilities_BV, 0.0).sum(dim=-1)
    # The first token whose cumulated probability passes the draw; within those kept, whatever rounding does.
    place_B = (cumulated_BV <= (uniform_B.double() * total_B)[:, None]).sum(dim=-1)
    place_B = torch.minimum(place_B, kept_BV.sum(dim=-1) - 1)
    return tokens_BV.gather(-1, place_B[:, None])[:, 0]
