"""What an estimate says of the machine's own memory."""

from ftk.memory.parameters import Inventory
from ftk.memory.setup import Setup
from ftk.memory.stored import weights_bytes
from ftk.memory.units import shown
from ftk.recipe.schema import Recipe
from ftk.runs.whole_weights import asked_apart, used_before_shards


def notes_on_the_machine(recipe: Recipe, setup: Setup, weights: Inventory) -> list[str]:
    """What training in shards asks of it, and what of it asks for a whole model on each GPU."""
    if setup.device == "cpu" or setup.processes == 1 or setup.strategy not in ("fsdp", "fsdp_offload"):
        return []
    whole = shown(weights_bytes(weights, number_bytes=setup.frozen_bytes, stored=setup.stored))
    first, without = used_before_shards(recipe), asked_apart(recipe)
    notes = [
        f"where a GPU does not hold the model whole, each process first loads it into the machine's memory: {whole}"
        if first is None
        else f"each GPU must hold the model whole before it is sharded, for {first}: {whole}"
    ]
    if without:
        notes.append(
            f"to generate, each GPU gathers all weights beside its shards: {whole} more before and after training; "
            f"{' '.join(without)} does without"
        )
    if setup.strategy == "fsdp_offload":
        notes += [
            "torch gives out pinned memory in powers of two: offloaded weights and gradients may take twice as much",
            "a time is that of the operations: what offloading adds, --fit tells",
        ]
    return notes
