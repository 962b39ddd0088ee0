"""Shifted sparse attention: full attention within groups of tokens, shifted by half a group in half of the heads.

Source: Chen et al. 2023 (arXiv:2309.12307, LongLoRA), section 3.2 and algorithm 1. There the last half group of the
shifted heads goes together with the first one, which would see what comes after it; here both are groups by themselves.

Shapes: B rows, H heads, L positions, N = B * L, D head width, G groups, S places of a group.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def shifted_sparse_attention(
    query_BHLD: Tensor,
    key_BHLD: Tensor,
    value_BHLD: Tensor,
    *,
    position_ids_BL: Tensor,
    group: int,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """[B, H, L, D]: each token attends to those up to itself of its group. Memory and time grow linearly with L.

    Groups are counted from each text's own beginning, so a text gives the same alone and packed with others, and texts
    see nothing of each other.

    Args:
        query_BHLD: of an even number of heads, of which the second half is shifted.
        key_BHLD: as many heads.
        value_BHLD: as many heads.
        position_ids_BL: a text begins wherever they do not go on by one.
        group: tokens of a group; even.
        scale: of the products of queries and keys; by default one over the root of D.
        dropout: share of attention that is zeroed.

    Raises:
        ValueError: the number of heads, or the group, is odd.
    """
    num_heads = query_BHLD.shape[1]
    if num_heads % 2 or group % 2:
        raise ValueError(f"{num_heads} heads and groups of {group} tokens cannot be halved")
    half = num_heads // 2
    parts = []
    for heads, shift in ((slice(half), 0), (slice(half, None), group // 2)):
        places_N, num_groups = _places(position_ids_BL, group=group, shift=shift)
        query_GHSD, key_GHSD, value_GHSD = (
            _grouped(states_BHLD[:, heads], places_N, num_groups, group)
            for states_BHLD in (query_BHLD, key_BHLD, value_BHLD)
        )
        # What fills a group up stands at its end, where no token of it looks.
        seen_GHSD = F.scaled_dot_product_attention(
            query_GHSD, key_GHSD, value_GHSD, dropout_p=dropout, is_causal=True, scale=scale
        )
        parts.append(_as_rows(seen_GHSD, places_N, rows=query_BHLD.shape[0]))
    return torch.cat(parts, dim=1)


def _places(position_ids_BL: Tensor, *, group: int, shift: int) -> tuple[Tensor, int]:
    """Where each token goes when groups lie one after another with `group` places each, and how many there are."""
    is_start_BL = (position_ids_BL + shift) % group == 0
    is_start_BL[:, 0] = True
    is_start_BL[:, 1:] |= position_ids_BL[:, 1:] != position_ids_BL[:, :-1] + 1
    is_start_N = is_start_BL.flatten()
    tokens_N = torch.arange(len(is_start_N), device=is_start_N.device)
    starts_N = torch.where(is_start_N, tokens_N, 0).cummax(0).values
    groups_N = is_start_N.cumsum(0) - 1
    return groups_N * group + tokens_N - starts_N, int(groups_N[-1]) + 1


def _grouped(states_BHLD: Tensor, places_N: Tensor, num_groups: int, group: int) -> Tensor:
    """[G, H, S, D], zeros where a group has fewer tokens."""
    num_heads, width = states_BHLD.shape[1], states_BHLD.shape[3]
    states_NHD = states_BHLD.transpose(1, 2).flatten(0, 1)
    empty = states_NHD.new_zeros((num_groups * group, num_heads, width))
    return empty.index_copy(0, places_N, states_NHD).view(num_groups, group, num_heads, width).transpose(1, 2)


def _as_rows(states_GHSD: Tensor, places_N: Tensor, *, rows: int) -> Tensor:
    states_NHD = states_GHSD.transpose(1, 2).flatten(0, 1)[places_N]
    return states_NHD.view(rows, -1, *states_NHD.shape[1:]).transpose(1, 2)
