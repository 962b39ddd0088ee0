"""A model spread over more devices, and its shards laid into the machine's memory: what that takes in time."""

import math

from ftk.memory.flops import flops_per_token
from ftk.memory.stored import adapter_weights, trained_sizes, weights_bytes
from ftk.recipe.schema import Recipe
from ftk.runs.advising.change import Change, Harm
from ftk.runs.estimate import Question
from ftk.train.settings import Strategy

DEVICES = (2, 4, 8)
LINK_OPERATIONS = 15_500
"""Operations that a GPU makes while it gets a byte from the machine: 989 TFLOPS over 64 GB/s, an H100 at PCIe 5.0 of 16
lanes; an A100 at PCIe 4.0 makes 9,750, an RTX 4090 5,200. Source: the makers' data sheets, which add up both ways."""
HOST_OPERATIONS = 12_900
"""Operations that a GPU makes while the machine's memory moves a byte for it: 989 TFLOPS over 77 GB/s, an eighth of two
processors with eight channels of DDR5-4800 (8 x 8 bytes x 4.8 GT/s = 307 GB/s each), as a DGX H100 has them."""


def devices(recipe: Recipe, *, more: bool) -> tuple[Change, ...]:
    """Shards on devices, then shards in the machine's memory; `more` adds devices to those that the recipe has."""
    parallel = recipe.parallel
    now = 1 if parallel.processes == "auto" else parallel.processes
    found: list[Change] = []
    ways: tuple[Strategy, ...] = ("fsdp", "fsdp_offload")
    # From what the recipe does on: on as many devices each way takes less than the one before.
    for way in ways[ways.index("fsdp_offload" if parallel.strategy == "fsdp_offload" else "fsdp") :]:
        # The same number of devices takes less once each no longer holds everything, or holds no part of it.
        numbers = [now] if now > 1 and parallel.strategy != way else []
        numbers += [number for number in DEVICES if more and number > now]
        found += [_spread(number, way, now=now, before=parallel.strategy) for number in numbers]
    return tuple(found)


def _spread(number: int, way: Strategy, *, now: int, before: Strategy) -> Change:
    def slowdown(asked: Question, changed: Question) -> float:
        slower = offload_slowdown(changed) if way == "fsdp_offload" != before else 1.0
        return slower * now / number

    def apply(recipe: Recipe) -> Recipe:
        spread = recipe.parallel.model_copy(update={"processes": number, "strategy": way})
        return recipe.model_copy(update={"parallel": spread})

    return Change(
        (f"parallel.processes={number}", f"parallel.strategy={way}"),
        apply,
        Harm.MORE_DEVICES if number > now else Harm.NONE,
        slowdown,
        _OFFLOADED.format(number) if way == "fsdp_offload" else _SHARDED.format(number),
    )


_SHARDED = (
    "the same result on {} GPUs; the time is without what they send each other, which is 1.5 times that of ddp "
    "(Rajbhandari et al. 2020, arXiv:1910.02054, section 7.2)"
)
_OFFLOADED = (
    "the same result on {} GPUs, with weights, gradients and states in the machine's memory, where its processor "
    "adds and updates them; the time is as if none of it went on beside the computing: weights twice and gradients "
    "once a pass over PCIe 5.0 (64 GB/s against an H100's 989 TFLOPS), and sums of gradients and the update at 77 GB/s "
    "for each GPU (DGX H100); a step of several passes may take longer, as it waits for each copy that is added"
)


def offload_slowdown(asked: Question) -> float:
    """Time of a step with shards in the machine's memory, in times of what it takes with shards on the GPUs.

    Derivation: for each pass a process copies its part of the stored weights to the GPU before the forward and before
    the backward pass, and gradients of the trained ones back in float32 (`CPUOffloadPolicy` of torch 2.13). In each
    step the processor reads gradients for their norm, then weights, gradients and states, and writes weights and
    states. After each pass but a step's first it also adds gradients to those that lie there: it reads both, and writes
    their sum (`to_accumulate_grad` in `_fsdp_collectives.py`), 12 bytes for each trained weight. What of that goes on
    while the GPU computes is not taken off; that copies which are added wait, and go through memory that is not
    pinned, is not put on.
    """
    setup, weights = asked.setup, asked.numbers.weights
    sizes = trained_sizes(weights, setup.adapter)
    stored = weights_bytes(weights, number_bytes=setup.frozen_bytes, stored=setup.stored)
    if setup.adapter is not None:
        stored += 4 * adapter_weights(weights, setup.adapter)
    copied = (2 * stored + 4 * sum(sizes)) / setup.processes
    passes = _passes(asked)
    added = 3 * 4 * sum(sizes) * (passes - 1) / setup.processes
    updated = (4 * 4 * sum(sizes) + 2 * sum(map(setup.state_bytes, sizes))) / setup.processes
    computed = setup.tokens * flops_per_token(
        weights,
        asked.numbers.architecture,
        length=setup.length,
        trains_all=setup.adapter is None,
        checkpointing=setup.checkpointing,
    )
    return 1 + (LINK_OPERATIONS * copied + HOST_OPERATIONS * (added + updated) / passes) / computed


def _passes(asked: Question) -> int:
    """Micro-batches of a step on each process."""
    training, setup = asked.recipe.training, asked.setup
    if training.batch_tokens is not None:
        return math.ceil(training.batch_tokens / (setup.tokens * setup.processes))
    return math.ceil(training.batch_size / (setup.rows * setup.processes))
