"""Preference losses by name, and random log-probabilities to try them on.

Shapes: P pairs, N completions.
"""

from typing import Any

import torch
from pydantic import TypeAdapter

from ftk.core.config import members
from ftk.objectives.preference import PreferenceLoss
from ftk.objectives.preference.compared import Pairs, Singles

P = 64
NAMES = sorted(members(PreferenceLoss.__origin__))
PAIRED = [name for name in NAMES if name != "kto"]
DIVERGENCES: list[Any] = ["forward_kl", "js", {"name": "alpha", "alpha": 0.5}, {"name": "alpha", "alpha": 1.0}]


def loss_of(settings: Any) -> Any:
    return TypeAdapter(PreferenceLoss).validate_python(settings)


def pairs_of(*, seed: int = 0, num_pairs: int = P, dtype: torch.dtype = torch.float32) -> Pairs:
    """Log-probabilities as of completions of 3 to 40 tokens, the policy some nats away from the reference."""
    generator = torch.Generator().manual_seed(seed)
    lengths_2P = torch.randint(3, 40, (2, num_pairs), generator=generator).to(dtype)
    ref_2P = -lengths_2P * torch.rand((2, num_pairs), generator=generator).to(dtype) - 0.1
    logps_2P = ref_2P + 2 * torch.randn((2, num_pairs), generator=generator).to(dtype)
    return Pairs(*logps_2P.clamp_max(-0.05), *ref_2P, *lengths_2P)


def singles_of(*, seed: int = 0, dtype: torch.dtype = torch.float32, baseline: float = 0.7) -> Singles:
    pairs = pairs_of(seed=seed, dtype=dtype)
    desirable_N = torch.arange(P) % 3 > 0
    return Singles(
        pairs.chosen_P, pairs.ref_chosen_P, pairs.chosen_lengths_P, desirable_N, torch.tensor(baseline, dtype=dtype)
    )


def where_nothing_moved(pairs: Pairs) -> Pairs:
    return pairs._replace(chosen_P=pairs.ref_chosen_P, rejected_P=pairs.ref_rejected_P)
