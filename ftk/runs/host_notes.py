"""What an estimate says of the machine's own memory."""

from ftk.memory.parameters import Inventory
from ftk.memory.setup import Setup
from ftk.memory.stored import weights_bytes
from ftk.memory.units import shown


def notes_on_the_machine(setup: Setup, weights: Inventory) -> list[str]:
    """What training in shards asks of it."""
    if setup.device == "cpu" or setup.processes == 1 or setup.strategy not in ("fsdp", "fsdp_offload"):
        return []
    whole = shown(weights_bytes(weights, number_bytes=setup.frozen_bytes, stored=setup.stored))
    notes = [
        f"where a GPU does not hold the model whole, each process first loads it into the machine's memory: {whole}"
    ]
    if setup.strategy == "fsdp_offload":
        notes += [
            "torch gives out pinned memory in powers of two: offloaded weights and gradients may take twice as much",
            "a time is that of the operations: what offloading adds, --fit tells",
        ]
    return notes
