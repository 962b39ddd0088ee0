"""The analytic answer: the step of a model gone through on a tape of sizes, with the moment of its peak."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ftk.memory.architecture import Architecture
from ftk.memory.communication import Shares, buffer_bytes, shares
from ftk.memory.estimate import MemoryBytes
from ftk.memory.gpus import CONTEXT_BYTES, CUDA_BLOCK
from ftk.memory.head import scored
from ftk.memory.layers import Layer, Positions, forward_of, layer_of, whole
from ftk.memory.ledger import Ledger, Storage
from ftk.memory.matrices import Matrix, matrix
from ftk.memory.norms import normed
from ftk.memory.operations import joined, scale
from ftk.memory.parameters import Inventory
from ftk.memory.setup import Setup
from ftk.memory.stored import adapter_weights, decayed_sizes, trained_sizes, weights_bytes
from ftk.memory.tape import Parameter, Tape, Tensor

WORKSPACE_BYTES = 4096 * 1024 * 2 + 16 * 1024 * 8
"""The workspace that torch allocates for cuBLAS (`getChosenWorkspaceSize`, aten/src/ATen/cuda/CUDABlas.cpp)."""
BATCH_BYTES = 8 + 8 + 8 + 4 + 1
"""Of a token in a batch: its id, position, document, weight, and whether it is learned (`ftk.core.types.Batch`)."""


ACTIVATIONS = ("activations", "attention", "rotary", "norms", "feed_forward", "router")
"""Kinds of the tape that are activations; what no part made by itself (inputs of layers, sums) counts as the first."""


@dataclass(slots=True)
class Model:
    """A model's weights on a tape."""

    embedding: Parameter
    layers: list[Layer]
    final_norm: list[Parameter]
    head: Matrix


@dataclass(frozen=True, slots=True)
class Peak:
    """A step at its most."""

    bytes: MemoryBytes
    moment: str
    activations: Mapping[str, int]
    """Of the activations, by the part of the model that made them."""
    host: int = 0
    """Bytes that lie in the machine's memory instead."""


def training_peak(architecture: Architecture, weights: Inventory, setup: Setup) -> Peak:
    """Bytes on one device at the peak of a step, and when that comes."""
    share = shares(setup)
    ledger = Ledger(grain=1 if setup.device == "cpu" else CUDA_BLOCK)
    added = adapter_weights(weights, setup.adapter) if setup.adapter else 0
    states = sum(setup.state_bytes(size) for size in trained_sizes(weights, setup.adapter))
    stored = weights_bytes(weights, number_bytes=setup.frozen_bytes, stored=setup.stored)
    held = {
        "weights": stored * share.weights,
        "adapter": 4 * added * share.weights,
        "optimizer": states * share.optimizer,
    }
    for kind, num_bytes in held.items():
        ledger.take(kind, 0 if share.on_host else round(num_bytes))
    ledger.take("overhead", buffer_bytes(architecture, setup) + overhead_bytes(setup))
    update = round(_update_bytes(weights, setup, share))
    _step(ledger, architecture, setup, share, update_bytes=0 if share.on_host else update)
    held_at_peak = ledger.peak
    activations = {kind: held_at_peak.get(kind, 0) for kind in ACTIVATIONS}
    names = ("weights", "adapter", "gradients", "optimizer", "logits", "overhead")
    peak = MemoryBytes(**{name: held_at_peak.get(name, 0) for name in names}, activations=sum(activations.values()))
    gradients = 4 * (added if setup.adapter else weights.total) * share.gradients
    host = round(sum(held.values()) + gradients) + update if share.on_host else 0
    return Peak(peak, ledger.peak_moment, activations, host)


def overhead_bytes(setup: Setup) -> int:
    """What the process takes of the device beside tensors."""
    return WORKSPACE_BYTES + CONTEXT_BYTES if setup.device == "cuda" else 0


def _update_bytes(weights: Inventory, setup: Setup, share: Shares) -> float:
    """What the update takes for the while, beside the gradients of all."""
    # Parameters are updated one after another.
    largest = max((setup.update_bytes(size) for size in trained_sizes(weights, setup.adapter)), default=0)
    decayed = decayed_sizes(weights, setup.adapter) if setup.decay_copies != "none" else []
    # Sharded tensors are not taken together (`_default_to_fused_or_foreach` of torch/optim/optimizer.py).
    at_once = sum(decayed) if setup.decay_copies == "all" and not share.gathers else max(decayed, default=0)
    return max(largest, 4 * at_once) * share.optimizer


def _step(ledger: Ledger, architecture: Architecture, setup: Setup, share: Shares, *, update_bytes: int) -> None:
    """One step as every one after the first is: the optimizer has its states already."""
    kept = 0.0 if share.on_host else share.gradients
    tape = Tape(ledger, compute_width=setup.compute_bytes, gradient_share=kept, keeps_casts=not share.gathers)
    model = _model(architecture, setup)
    batch = Storage(ledger, "activations", setup.tokens * BATCH_BYTES)
    # DDP's buckets hold gradients all the time.
    is_copied = setup.processes > 1 and not share.gathers and share.gradients == 1
    if setup.accumulates or is_copied:
        for parameter in _trained(model):
            parameter.grad = Storage(ledger, "gradients", round(parameter.numel * parameter.width * kept))
    loss = _forward(tape, model, architecture, setup)
    ledger.moment = "the backward pass"
    tape.backward(loss)
    del batch, loss
    ledger.moment = "the optimizer's update"
    ledger.take("optimizer", update_bytes)


def _model(architecture: Architecture, setup: Setup) -> Model:
    adapter, size = setup.adapter, architecture.vocabulary * architecture.hidden
    trained, width = whole(setup, "embeddings")
    if architecture.tied and whole(setup, "head")[0]:
        trained, width = whole(setup, "head")
    embedding = Parameter(size, width, trained=trained)
    in_head = adapter if adapter is not None and adapter.targets and adapter.adapts("lm_head") else None
    head_trained, head_width = whole(setup, "head")
    head = matrix(
        architecture.hidden,
        architecture.vocabulary,
        bias=False,
        width=head_width,
        trained=head_trained,
        adapter=in_head,
        stored=None,
    )
    if architecture.tied:
        head.weight = embedding
    norms_trained, norms_width = whole(setup, "norms")
    return Model(
        embedding,
        [layer_of(architecture, setup) for _ in range(architecture.num_layers)],
        [
            Parameter(architecture.hidden, norms_width, trained=norms_trained)
            for _ in range(2 if architecture.norm == "layer" else 1)
        ],
        head,
    )


def _trained(model: Model) -> Iterator[Parameter]:
    matrices = [model.head, *(one for layer in model.layers for one in (*layer.attention, *layer.feed_forward))]
    found = [model.embedding, *model.final_norm]
    for one in matrices:
        found += [part for part in (one.weight, one.bias, one.down, one.up) if part is not None]
    for layer in model.layers:
        found += [part for norm in layer.norms for part in norm]
        if layer.experts is not None:
            experts = layer.experts
            found += [experts.router, experts.up, experts.down, *(experts.ups or ()), *(experts.downs or ())]
    yield from {id(one): one for one in found if one.trained}.values()


def _forward(tape: Tape, model: Model, architecture: Architecture, setup: Setup) -> Tensor:
    """Log-probabilities of the tokens, with the graph that they came from."""
    ledger = tape.ledger
    with tape.autocast():
        ledger.moment = "the forward pass"
        x = _embedded(tape, model.embedding, architecture, setup)
        positions = _positions(tape, architecture, setup, x.width)
        positions += _masks(tape, architecture, setup)
        for number, layer in enumerate(model.layers):
            ledger.moment = f"the forward pass of layer {number + 1} of {architecture.num_layers}"
            masked = setup.packed or (number < architecture.num_sliding_layers and _is_cut(architecture, setup))
            run = forward_of(tape, architecture, layer, setup, positions, masked=masked)
            x = tape.checkpoint(run, x) if setup.checkpointing else run(x)
        x = normed(tape, x, model.final_norm, kind=architecture.norm)
        del positions, run
        ledger.moment = "the output head"
        # Chunks share one cast of the head, also beside shards, where other casts are not kept (`ftk.train.group`).
        with tape.counted_as("logits"), tape.autocast(keeps=True):
            hidden = _scored_states(tape, x, setup, architecture.hidden)
            chunks = scored(tape, hidden, model.head, setup=setup, soft_cap=architecture.logit_soft_cap is not None)
            return joined(tape, chunks)


def _embedded(tape: Tape, embedding: Parameter, architecture: Architecture, setup: Setup) -> Tensor:
    leaf = Tensor(None, embedding.numel, embedding.width, parameter=embedding)
    size = leaf.num_bytes
    numel = setup.tokens * architecture.hidden
    x = tape.apply([leaf], out=(numel, embedding.width), backward=lambda g: [tape.new(size)])
    return scale(tape, x) if architecture.embedding_scaled else x


def _positions(tape: Tape, architecture: Architecture, setup: Setup, width: int) -> Positions:
    """Cosines and sines, once for all rows where all count from 0."""
    rows = setup.rows if setup.packed else 1
    numel = int(rows * setup.length * architecture.head_dim * architecture.rotary_share)
    cos, sin = Tensor(tape.new(numel * width), numel, width), Tensor(tape.new(numel * width), numel, width)
    return cos, sin


def _masks(tape: Tape, architecture: Architecture, setup: Setup) -> tuple[Tensor, ...]:
    """Which token sees which: a number for the eager kernel; yes or no for SDPA, where order alone does not tell.

    A model whose layers look back differently far has one of each kind.
    """
    pairs, width = setup.rows * setup.length**2, setup.compute_bytes if setup.attention == "eager" else 1
    is_mixed = 0 < architecture.num_sliding_layers < architecture.num_layers
    count = 0
    if setup.attention == "eager":
        count = 2 if is_mixed else 1
    elif setup.attention == "sdpa":
        is_cut = _is_cut(architecture, setup)
        count = int(setup.packed and (is_mixed or not is_cut)) + int(is_cut)
    return tuple(Tensor(tape.new(pairs * width), pairs, width) for _ in range(count))


def _is_cut(architecture: Architecture, setup: Setup) -> bool:
    """Whether rows are longer than a window."""
    return architecture.sliding_window is not None and setup.length > architecture.sliding_window


def _scored_states(tape: Tape, x: Tensor, setup: Setup, width: int) -> Tensor:
    size = x.num_bytes
    numel = setup.scored * width
    return tape.apply([x], out=(numel, x.width), extra=8 * setup.scored, backward=lambda g: [tape.new(size)])
