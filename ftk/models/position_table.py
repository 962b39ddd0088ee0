"""Learned positions: a table of one vector a position, stretched to more of them.

Shapes: P positions of the table, Q of the stretched one, D width.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftk.core.errors import ModelError


def stretched(table_PD: Tensor, num_positions: int) -> Tensor:
    """[Q, D]: the table read at Q evenly spaced places, its ends included; computed in float32.

    Source: Chen et al. 2023 (arXiv:2306.15595), section 2.3, for learned positions instead of rotary ones.
    """
    columns_1DP = table_PD.float().T[None]
    return F.interpolate(columns_1DP, size=num_positions, mode="linear", align_corners=True)[0].T.to(table_PD.dtype)


def stretch_position_table(model: Any, *, before: int, after: int, name: str) -> None:
    """Give a model with learned positions more of them, by interpolation between those it has.

    Args:
        model: a transformers model whose configuration says `before` positions.

    Raises:
        ModelError: no table of so many positions is found in it.
    """
    found = [module for module in model.modules() if _is_table(module, model, before)]
    if len(found) != 1:
        raise ModelError(
            f"{name} has neither rotary positions nor a table of {before} learned ones, so ftk cannot extend it. Leave "
            "model.context out",
            place="model.context",
        )
    table = found[0]
    # OPT's table begins with rows that stand for padding.
    num_extra = table.num_embeddings - before
    weight = table.weight.data
    table.weight = nn.Parameter(torch.cat([weight[:num_extra], stretched(weight[num_extra:], after)]))
    table.num_embeddings = after + num_extra
    model.config.get_text_config(decoder=True).max_position_embeddings = after
    model.config.max_position_embeddings = after


def _is_table(module: nn.Module, model: Any, positions: int) -> bool:
    if not isinstance(module, nn.Embedding) or module is model.get_input_embeddings():
        return False
    return module.num_embeddings - int(getattr(module, "offset", 0)) == positions
