"""Several adapters put together: one update of each weight from several, or one adapter from several."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ftk.core.errors import RecipeError
from ftk.merging.adapters.adapter import Adapter
from ftk.merging.adapters.formulas import low_rank_approximation, recompress
from ftk.merging.adapters.names import PREFIX, split_name
from ftk.merging.methods.dare_linear import dare
from ftk.merging.methods.ties import ties

How = Literal["linear", "concatenation", "svd", "ties", "dare_linear", "dare_ties"]
ADDS = ("linear", "concatenation")
"""The ways that are a weighted sum, and nothing else."""
NEEDS_DENSITY = ("ties", "dare_linear", "dare_ties")


@dataclass(frozen=True)
class Combination:
    """How updates of several adapters become one.

    `linear` and `concatenation` are the weighted sum of the updates; as an adapter that has the sum of the ranks. `svd`
    is the nearest update of a given rank to that sum. `ties`, `dare_linear` and `dare_ties` are those of whole models,
    with the updates as the differences to the base.
    """

    how: How
    rank: int | None = None
    """Of `svd`, and of an adapter made by `ties` or DARE."""
    density: float | None = None
    """Share of each update's values that `ties` and DARE keep."""
    seed: int = 0
    """Of what DARE drops."""

    def __call__(self, name: str, updates: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        """One update in float32 from several of a tensor; three dimensions are a stack of matrices."""
        if self.how in ADDS:
            return _weighted_sum(updates, weights)
        if self.how == "svd":
            total = _weighted_sum(updates, weights)
            if total.ndim < 2 or self.rank is None:
                return total
            if total.ndim > 2:
                return torch.stack([_nearest(matrix, rank=self.rank) for matrix in total])
            return _nearest(total, rank=self.rank)
        return self._of_models(name, updates, weights)

    def _of_models(self, name: str, updates: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
        # Where the updates start from.
        base = torch.zeros_like(updates[0])
        densities = [self.density if self.density is not None else 1.0] * len(updates)
        if self.how == "ties":
            return ties(updates, base, weights_M=weights, densities_M=densities)
        generator = torch.Generator().manual_seed(_seed(self.seed, name))
        return dare(
            updates,
            base,
            weights_M=weights,
            densities_M=densities,
            elect_signs=self.how == "dare_ties",
            normalize=False,
            rescale=True,
            scale=1.0,
            generator=generator,
        )


def combined_adapter(
    adapters: Sequence[Adapter], weights: Sequence[float], combination: Combination
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """One LoRA from several: its adapter_config.json, and its tensors as PEFT names them.

    Raises:
        RecipeError: one of them is more than low-rank updates of modules.
    """
    for adapter in adapters:
        _require_plain(adapter)
    modules = sorted({module for adapter in adapters for module in adapter.modules})
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    for module in modules:
        factors, shares = [], []
        for adapter, share in zip(adapters, weights, strict=True):
            if module in adapter.modules:
                factors.append(_factors(adapter, module))
                shares.append(share)
        # A convolution's kernel is one long row of inputs.
        matrices = [(a.flatten(1), b.flatten(1)) for a, b in factors]
        a_RI, b_OR = _combined(module, matrices, shares, combination)
        ranks[module] = a_RI.shape[0]
        a_RI, b_OR = _as_convolution(a_RI, b_OR, factors[0][0].shape[1:])
        is_embedding = any("lora_embedding_A" in adapter.modules.get(module, ()) for adapter in adapters)
        names = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A.weight", "lora_B.weight")
        tensors |= {f"{PREFIX}{module}.{name}": part for name, part in zip(names, (a_RI, b_OR), strict=True)}
    return _config(adapters[0].config, ranks), tensors


def lora_config(base: str | None, ranks: Mapping[str, int]) -> dict[str, Any]:
    """adapter_config.json of a plain LoRA whose scaling is 1."""
    rank = max(ranks.values())
    # PEFT reads keys of patterns as regular expressions.
    others = {module.replace(".", r"\."): own for module, own in ranks.items() if own != rank}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": others,
        "alpha_pattern": dict(others),
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
    }


def _config(first: Mapping[str, Any], ranks: Mapping[str, int]) -> dict[str, Any]:
    config = lora_config(first.get("base_model_name_or_path"), ranks)
    return config | {key: first[key] for key in ("revision", "task_type", "fan_in_fan_out") if first.get(key)}


def _factors(adapter: Adapter, module: str) -> tuple[Tensor, Tensor]:
    parts = adapter.modules[module]
    is_embedding = "lora_embedding_A" in parts
    a_RI = parts["lora_embedding_A" if is_embedding else "lora_A"].float()
    b_OR = parts["lora_embedding_B" if is_embedding else "lora_B"].float()
    return a_RI, b_OR * adapter.scaling(module, rank=a_RI.shape[0])


def _combined(
    module: str, factors: Sequence[tuple[Tensor, Tensor]], weights: Sequence[float], combination: Combination
) -> tuple[Tensor, Tensor]:
    if combination.how in (*ADDS, "svd"):
        a_RI = torch.cat([a for a, _ in factors])
        b_OR = torch.cat([b * weight for (_, b), weight in zip(factors, weights, strict=True)], dim=1)
        if combination.rank is None or combination.how in ADDS:
            return a_RI, b_OR.contiguous()
        return recompress(a_RI, b_OR, rank=combination.rank)
    rank = combination.rank or max(a.shape[0] for a, _ in factors)
    return low_rank_approximation(combination(module, [b @ a for a, b in factors], weights), rank=rank)


def _as_convolution(a_RI: Tensor, b_OR: Tensor, inputs: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The factors with the dimensions that a convolution's have, [R, I, kernel...] and [O, R, 1...]."""
    return a_RI.view(-1, *inputs), b_OR.view(*b_OR.shape, *(1 for _ in inputs[1:]))


def _nearest(matrix_OI: Tensor, *, rank: int) -> Tensor:
    a_RI, b_OR = low_rank_approximation(matrix_OI, rank=rank)
    return b_OR @ a_RI


def _require_plain(adapter: Adapter) -> None:
    reason = None
    if adapter.kind != "LORA":
        reason = f"it is {adapter.kind}, not LoRA"
    elif adapter.config.get("use_dora"):
        reason = "DoRA's magnitudes depend on the base's weights"
    elif adapter.config.get("target_parameters"):
        reason = "it adapts parameters of fused experts"
    elif adapter.replaced:
        reason = f"it brings {next(iter(adapter.replaced))} whole"
    else:
        odd = next((name for name in adapter.tensors if split_name(name)[1] in _NOT_LOW_RANK), None)
        reason = f"it holds {odd}" if odd else None
    if reason is not None:
        raise RecipeError(
            f"the adapter in {adapter.folder} is more than low-rank updates ({reason}), so it cannot become part of "
            "another adapter. Leave --as-adapter out to fold it into the base with the others",
            place="--as-adapter",
        )


_NOT_LOW_RANK = ("lora_B.bias", "token_adapter.trainable_tokens_delta")


def _weighted_sum(updates: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    total = updates[0] * weights[0]
    for update, weight in zip(updates[1:], weights[1:], strict=True):
        total.add_(update, alpha=weight)
    return total


def _seed(seed: int, name: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little") % 2**63
