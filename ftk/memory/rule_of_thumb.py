"""The customary formulas, which need a number of parameters alone. They leave out much: the analytic answer does not.

Source: the formulas that pages about GPU memory agree on, such as EleutherAI's "Transformer Math 101" (2023): 20% above
the weights to serve; gradients and the optimizer's states in the type of the weights.
"""

from collections.abc import Mapping
from typing import Any

SERVING = 1.2
"""Weights, and a fifth of them for keys, values and activations."""

STATES: Mapping[str, int] = {"sgd": 0, "momentum": 1, "adam": 2}
"""Numbers that an optimizer keeps for each trained weight."""


def inference_bytes(parameters: int, *, weight_bytes: float) -> int:
    """Bytes to serve a model: parameters * bytes * 1.2."""
    return round(parameters * weight_bytes * SERVING)


def training_bytes(
    parameters: int, trained: int, *, weight_bytes: float, trained_bytes: float, states: int, activations: int = 0
) -> int:
    """Bytes to train: weights + activations + gradients + optimizer states, all in bytes a number.

    Args:
        weight_bytes: of a weight as it is stored.
        trained_bytes: of a gradient, and of a state.
        states: numbers that the optimizer keeps for each trained weight: 0 for SGD, 1 with momentum, 2 for Adam.
    """
    return round(parameters * weight_bytes + activations + trained * trained_bytes * (1 + states))


def rule_of_thumb(
    parameters: int, trained: int, *, weight_bytes: float, states: int, activations: int | None = None
) -> dict[str, Any]:
    """Both formulas with their figures, as they are shown.

    Gradients and states are counted in 2 bytes, as the rule has it, where weights have fewer.
    """
    trained_bytes = max(2.0, weight_bytes)
    weights = round(parameters * weight_bytes)
    moved = round(trained * trained_bytes * (1 + states))
    return {
        "inference_formula": f"parameters x {weight_bytes:g} bytes x {SERVING:g}",
        "weights_bytes": weights,
        "inference_bytes": inference_bytes(parameters, weight_bytes=weight_bytes),
        "training_formula": (
            f"parameters x {weight_bytes:g} bytes + activations + trained x {trained_bytes:g} bytes x "
            f"(1 gradient + {states} states)"
        ),
        "gradients_and_states_bytes": moved,
        "activations_bytes": activations,
        "training_bytes": weights + moved + (activations or 0),
    }
