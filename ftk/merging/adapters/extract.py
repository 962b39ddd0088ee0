"""A LoRA taken out of two whole models: the base, and what it was tuned to.

Shapes: O rows and I columns of a weight, R rank.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ftk.core.errors import ModelError
from ftk.merging.adapters.architecture import Architecture, Piece
from ftk.merging.adapters.combine import lora_config
from ftk.merging.adapters.formulas import leading_factors, rank_of_energy, singular_values
from ftk.merging.adapters.names import PREFIX
from ftk.merging.stream import Checkpoint


@dataclass(frozen=True)
class Extracted:
    """An adapter, and how much of the difference it holds."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    ranks: Mapping[str, int]
    """By adapted module."""
    whole: tuple[str, ...]
    """Modules that are in it whole, being no matrix product."""
    energy: float
    """Share of the sum of squares of all differences between matrices that the low ranks hold."""


def extract(
    base: Checkpoint,
    tuned: Checkpoint,
    architecture: Architecture,
    *,
    base_name: str,
    rank: int | None,
    energy: float | None,
) -> Extracted:
    """The adapter that brings `base` nearest to `tuned`.

    Args:
        base: weights before.
        tuned: weights after, of the same architecture.
        architecture: of both.
        base_name: what finds the base again.
        rank: of every adapted matrix; or
        energy: share of each difference's sum of squares that its rank shall hold.

    Raises:
        ModelError: the models differ in architecture or shape, are the same, or differ in what no adapter can hold.
    """
    names = _changed(base, tuned, architecture)
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    kept = total = 0.0
    by_module = _by_module(names, architecture)
    for module, parameters in by_module.items():
        name = parameters.get("weight")
        if module not in architecture.quantizable or name is None:
            continue
        difference_OI = tuned.read(name).float() - base.read(name).float()
        base.require_finite(name, base.read(name))
        tuned.require_finite(name, tuned.read(name))
        difference_OI = difference_OI.T if module in architecture.conv1d else difference_OI
        values, vectors = singular_values(difference_OI)
        own = min(rank, len(values)) if rank is not None else rank_of_energy(values, energy=energy or 1.0)
        a_RI, b_OR = leading_factors(difference_OI, values, vectors, rank=own)
        tensors |= {f"{PREFIX}{module}.lora_A.weight": a_RI, f"{PREFIX}{module}.lora_B.weight": b_OR}
        ranks[module] = own
        kept += float(values[:own].square().sum())
        total += float(values.square().sum())
    if not ranks:
        raise ModelError(
            f"{tuned.folder} and {base.folder} differ in no matrix that LoRA could adapt, so there is no LoRA to take "
            "out of them"
        )
    config = lora_config(base_name, ranks) | {"fan_in_fan_out": bool(architecture.conv1d)}
    whole = _add_whole(tensors, config, by_module, ranks, tuned, architecture)
    return Extracted(config, tensors, ranks, whole, kept / total)


def _add_whole(
    tensors: dict[str, Tensor],
    config: dict[str, Any],
    by_module: Mapping[str, Mapping[str, str]],
    ranks: Mapping[str, int],
    tuned: Checkpoint,
    architecture: Architecture,
) -> tuple[str, ...]:
    """Add what is no matrix product: biases, norms, embeddings and the head."""
    whole = []
    for module, parameters in by_module.items():
        if module in architecture.quantizable:
            if "bias" in parameters:
                config["bias"] = "all"
                place = f"{module}.base_layer" if module in ranks else module
                tensors[f"{PREFIX}{place}.bias"] = tuned.read(parameters["bias"]).float().clone()
            continue
        whole.append(module)
        for own in architecture.own_parameters.get(module, tuple(parameters)):
            name = _disk_name(f"{module}.{own}", architecture)
            tensors[f"{PREFIX}{module}.{own}"] = tuned.read(name).float().clone()
    for alias, source in architecture.tied.items():
        if source.removesuffix(".weight") in whole:
            # A head that is the embedding goes on being it.
            config["ensure_weight_tying"] = True
            tensors[f"{PREFIX}{alias}"] = tensors[f"{PREFIX}{source}"].clone()
    if whole:
        config["modules_to_save"] = whole
    return tuple(whole)


def _changed(base: Checkpoint, tuned: Checkpoint, architecture: Architecture) -> list[str]:
    """Names on disk of the tensors that differ.

    Raises:
        ModelError: the models differ in architecture or shape, or in parameters that no LoRA adapts.
    """
    ignored = set(architecture.tied)
    ours = {name for name in base.tensors if _piece(name, architecture).parameter not in ignored}
    theirs = {name for name in tuned.tensors if _piece(name, architecture).parameter not in ignored}
    if ours != theirs:
        name = min(ours ^ theirs)
        holder, other = (base, tuned) if name in ours else (tuned, base)
        raise ModelError(f"{holder.folder} has {name} and {other.folder} has not: they are of different architectures")
    for name in sorted(ours):
        before, after = base.tensors[name].shape, tuned.tensors[name].shape
        if before != after:
            raise ModelError(
                f"{name} has shape {before} in {base.folder} and {after} in {tuned.folder}. A LoRA can be taken out of "
                "models of one shape only; for added tokens, give the base as many rows first"
            )
    found = [name for name in base.tensors if name in ours and not _equal(base.read(name), tuned.read(name))]
    if not found:
        raise ModelError(f"{base.folder} and {tuned.folder} hold the same weights: there is nothing to take out")
    for name in found:
        piece = _piece(name, architecture)
        if not piece.is_whole or piece.parameter in architecture.unread:
            raise ModelError(
                f"{name} differs, and is a part of {piece.parameter}, which transformers fuses from several: ftk takes "
                "no LoRA out of such. Train the adapter beside the base instead"
            )
    return found


def _by_module(names: list[str], architecture: Architecture) -> dict[str, dict[str, str]]:
    """Names on disk by module and by the parameter's own name."""
    found: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for name in names:
        module, _, own = _piece(name, architecture).parameter.rpartition(".")
        found[module][own] = name
    return dict(found)


def _piece(name: str, architecture: Architecture) -> Piece:
    return architecture.pieces.get(name, Piece(name))


def _disk_name(parameter: str, architecture: Architecture) -> str:
    return next(name for name, piece in architecture.pieces.items() if piece.parameter == parameter)


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other) if one.dtype == other.dtype else torch.equal(one.float(), other.float())
