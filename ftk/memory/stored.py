"""Bytes of weights as they are stored: plain numbers, or a quantized format with its constants."""

import math
from dataclasses import replace

from ftk.memory.parameters import Inventory
from ftk.memory.setup import Adapter, Stored

NESTED_BLOCK = 256
"""Constants that share a constant of their own, where they are quantized too (bitsandbytes, `quantize_4bit`). Source:
Dettmers et al. 2023 (arXiv:2305.14314), equation 6."""


def matrix_bytes(num_weights: int, rows: int, stored: Stored) -> int:
    """Bytes of one matrix with its constants.

    A row-wise format has a float32 constant a row. A block-wise one has a float32 constant a block; where these are
    quantized too, a byte a block, a float32 for each 256 of these, their mean, and the two tables of values.

    Source: Dettmers et al. 2023 (arXiv:2305.14314), double quantization; layout as in bitsandbytes, `functional.py`.
    """
    packed = math.ceil(num_weights * stored.bits / 8)
    if stored.block is None:
        return packed + 4 * rows
    blocks = math.ceil(num_weights / stored.block)
    table = 4 * (1 << int(stored.bits))
    if not stored.double:
        return packed + 4 * blocks + table
    return packed + blocks + 4 * math.ceil(blocks / NESTED_BLOCK) + 4 + 4 * 256 + table


def weights_bytes(weights: Inventory, *, number_bytes: int, stored: Stored | None) -> int:
    """Bytes of all weights. Embeddings, norms, biases, experts and the head are never quantized.

    Experts of a layer are one parameter with three axes, which bitsandbytes passes over.
    """
    if stored is None:
        return weights.total * number_bytes
    matrices = sum(linear.num_weights for linear in weights.linears)
    packed = sum(matrix_bytes(linear.num_weights, linear.out_features, stored) for linear in weights.linears)
    return packed + (weights.total - matrices) * number_bytes


def adapter_weights(weights: Inventory, adapter: Adapter) -> int:
    """Weights that tuning adds: rank * (in + out) for each matrix that has an update, for each expert, and the copies.

    Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1; a magnitude a row for DoRA (arXiv:2402.09353).
    """
    return sum(trained_sizes(weights, adapter))


def trained_sizes(weights: Inventory, adapter: Adapter | None) -> list[int]:
    """Weights of each parameter that is trained: all, or the two thin matrices of each update and the copies."""
    if adapter is None:
        head = [] if weights.head is None or weights.tied else [weights.head.num_weights]
        biases = [linear.out_features for linear in weights.linears if linear.bias]
        matrices = [linear.num_weights for linear in weights.linears] + [one.num_weights for one in weights.fused]
        return [weights.embedding, *head, *matrices, *biases, *weights.norms, *weights.others]
    adapted = [linear for linear in weights.linears if adapter.adapts(linear.name)]
    if adapter.targets is not None and weights.head is not None and adapter.adapts(weights.head.name):
        adapted.append(weights.head)
    sizes = [adapter.rank * side for one in adapted for side in (one.in_features, one.out_features)]
    if adapter.decomposed:
        sizes += [one.out_features for one in adapted]
    if adapter.targets is None:
        sides = [(one, side) for one in weights.fused for side in (one.in_features, one.out_features)]
        sizes += [adapter.rank * one.num_experts * side for one, side in sides]
    return sizes + _copies(weights, adapter)


def decayed_sizes(weights: Inventory, adapter: Adapter | None) -> list[int]:
    """Of these, those that weight decay acts on: matrices, but no embeddings (`ftk.train.optimizers.is_decayed`)."""
    if adapter is not None:
        copied = [weights.head.num_weights] if "head" in adapter.beside and weights.head and not weights.tied else []
        return trained_sizes(weights, replace(adapter, decomposed=False, beside=frozenset())) + copied
    head = [] if weights.head is None or weights.tied else [weights.head.num_weights]
    matrices = [linear.num_weights for linear in weights.linears] + [one.num_weights for one in weights.fused]
    return [*head, *matrices, *weights.others]


def _copies(weights: Inventory, adapter: Adapter) -> list[int]:
    """PEFT trains a copy of what is named whole; where head and embedding are one weight, so are their copies."""
    found = list(weights.norms) if "norms" in adapter.beside else []
    if weights.tied:
        return found + ([weights.embedding] if adapter.beside & {"embeddings", "head"} else [])
    if "embeddings" in adapter.beside:
        found.append(weights.embedding)
    if "head" in adapter.beside and weights.head is not None:
        found.append(weights.head.num_weights)
    return found
