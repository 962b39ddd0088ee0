"""The analytic answer: the step of a model, summed from its shapes."""

from ftk.memory.architecture import Architecture
from ftk.memory.estimate import MemoryBytes
from ftk.memory.parameters import Inventory
from ftk.memory.setup import Setup
from ftk.memory.stored import adapter_weights, weights_bytes


def training_peak(architecture: Architecture, weights: Inventory, setup: Setup) -> tuple[MemoryBytes, str]:
    """Bytes on one device at the peak of a step, and when that comes."""
    added = adapter_weights(weights, setup.adapter) if setup.adapter else 0
    trained = added if setup.adapter else weights.total
    stored = weights_bytes(weights, number_bytes=setup.frozen_bytes, stored=setup.stored)
    width = setup.compute_bytes
    per_layer = setup.tokens * (
        architecture.hidden * (8 + 4 * width)
        + (architecture.queries + 2 * architecture.keys) * width
        + architecture.queries * width
        + 4 * architecture.intermediate * width
    )
    kept = setup.tokens * architecture.hidden * width * architecture.num_layers
    activations = per_layer + kept if setup.checkpointing else per_layer * architecture.num_layers
    chunk = max(1024, 2**29 // (4 * architecture.vocabulary))
    logits = min(setup.scored, chunk) * architecture.vocabulary * (4 + 2 * width)
    return (
        MemoryBytes(
            weights=stored,
            adapter=added * 4,
            gradients=trained * 4,
            optimizer=setup.state_bytes(trained),
            activations=activations,
            logits=logits,
            overhead=0,
        ),
        "backward pass",
    )
