"""Dynamic NTK scaling for several texts at once: each is turned by its own length, whatever lies beside or before it.

transformers takes the longest row of a batch for all of them, and after a long one keeps its frequencies for the
shorter ones that follow: losses would depend on the order of the rows and on how they fall into batches.

Shapes: B rows, L positions, N = B * L, M rows and positions of one length, W rotated features.
"""

from typing import Any

import torch
from torch import Tensor, nn


def make_stateless(model: nn.Module) -> None:
    """Have each rotary embedding of a model turn every text by the text's own length.

    A text begins wherever a row or its positions begin anew; its length is its last position and one.
    """
    for module in model.modules():
        if "dynamic" in _kinds(module):
            _wrap(module)


def text_lengths(position_ids_BL: Tensor) -> Tensor:
    """[B, L]: the last position and one of the text that each place is of."""
    is_last_BL = torch.ones_like(position_ids_BL, dtype=torch.bool)
    is_last_BL[:, :-1] = position_ids_BL[:, 1:] != position_ids_BL[:, :-1] + 1
    places_L = torch.arange(position_ids_BL.shape[1], device=position_ids_BL.device).expand_as(position_ids_BL)
    never = position_ids_BL.shape[1]
    # Backwards, the nearest place that is its text's last.
    ends_BL = torch.where(is_last_BL, places_L, never).flip(1).cummin(1).values.flip(1)
    return position_ids_BL.gather(1, ends_BL) + 1


def _kinds(module: Any) -> list[str]:
    kinds = getattr(module, "rope_type", None)
    return list(kinds.values()) if isinstance(kinds, dict) else [kinds] if isinstance(kinds, str) else []


def _wrap(rotary: Any) -> None:
    own_forward, trained = rotary.forward, int(rotary.original_max_seq_len)

    def forward(x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> tuple[Tensor, Tensor]:
        named = {} if layer_type is None else {"layer_type": layer_type}
        if layer_type is not None and rotary.rope_type[layer_type] != "dynamic":
            plain: tuple[Tensor, Tensor] = own_forward(x, position_ids, **named)
            return plain
        lengths_BL = text_lengths(position_ids).clamp_min(trained)
        turned_2BLW: list[Tensor] = []
        for length in sorted(set(lengths_BL.flatten().tolist())):
            _forget(rotary, "" if layer_type is None else f"{layer_type}_", trained)
            row_1M = torch.arange(length, device=position_ids.device)[None]
            here_BL1 = (lengths_BL == length)[..., None]
            places_BL = position_ids.clamp(max=length - 1)
            own = [table_1MW[0][places_BL] for table_1MW in own_forward(x, row_1M, **named)]
            others = turned_2BLW or own
            turned_2BLW = [torch.where(here_BL1, new, old) for new, old in zip(own, others, strict=True)]
        cos, sin = turned_2BLW
        return cos, sin

    rotary.forward = forward


def _forget(rotary: Any, prefix: str, trained: int) -> None:
    """Put the frequencies back that it was trained with, as if it had seen no longer row."""
    setattr(rotary, f"{prefix}inv_freq", getattr(rotary, f"{prefix}original_inv_freq"))
    setattr(rotary, f"{prefix}max_seq_len_cached", trained)
