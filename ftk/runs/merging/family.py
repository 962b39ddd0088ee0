"""Whether models come from one base: weights of one family point the same way, those of strangers do not."""

from collections.abc import Sequence

import torch

from ftk.merging.configuration import ModelName
from ftk.merging.layers import layer_name
from ftk.merging.open_model import OpenModel

NUM_SAMPLED = 4
SAMPLE_ELEMENTS = 65_536
KIN = 0.5
"""Lowest cosine of weights that are taken for kin. Finetuning leaves it near 1; independent models are near 0."""


def strangers(models: Sequence[OpenModel], first: ModelName) -> list[str]:
    """A warning for each model whose weights do not point the way of the first one's.

    Where they do not, their neurons stand for other things, and means of them for nothing. A few matrices are sampled.
    """
    reference = next(model for model in models if model.name == first)
    warnings: list[str] = []
    for model in models:
        cosine = None if model is reference else _cosine(reference, model)
        if cosine is not None and cosine < KIN:
            warnings.append(
                f"{model.name} does not come from the same base as {first}: their weights have a cosine of "
                f"{cosine:.2f}, where models of one family have nearly 1. Merging works within a family"
            )
    return warnings


def _cosine(left: OpenModel, right: OpenModel) -> float | None:
    """Of matrices that both have, spread over the layers; None where there are none."""
    shared = [
        name
        for name in left.names
        if layer_name(name) is not None
        and name in right.checkpoint.tensors
        and len(left.spec(name).shape) == 2
        and left.spec(name).shape == right.spec(name).shape
        and left.spec(name).dtype.is_floating_point
    ]
    if not shared:
        return None
    chosen = shared[:: max(1, len(shared) // NUM_SAMPLED)][:NUM_SAMPLED]
    cosines = [torch.cosine_similarity(_sample(left, name), _sample(right, name), dim=0).item() for name in chosen]
    return sum(cosines) / len(cosines)


def _sample(model: OpenModel, name: str) -> torch.Tensor:
    return model.checkpoint.read(name).flatten()[:SAMPLE_ELEMENTS].float()
