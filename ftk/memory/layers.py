"""Decoder layers on a tape, in the order in which the models of the table compute."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ftk.memory.architecture import Architecture, Fused
from ftk.memory.attention import Heads, attend, turned
from ftk.memory.feed_forward import Experts, dense, mixture
from ftk.memory.matrices import Matrix, matrix, multiplied
from ftk.memory.norms import normed
from ftk.memory.operations import add, part, view
from ftk.memory.setup import Setup
from ftk.memory.tape import Parameter, Tape, Tensor


@dataclass(slots=True)
class Layer:
    """The weights of one layer."""

    attention: list[Matrix]
    """Queries, keys, values and the output; or one for the first three, and the output."""
    feed_forward: list[Matrix]
    experts: Experts | None
    norms: list[list[Parameter]]
    """In the order in which they are applied, those of queries and keys last."""


Positions = tuple[Tensor, Tensor]
"""Cosines and sines."""


def layer_of(architecture: Architecture, setup: Setup) -> Layer:
    """A layer whose weights are stored and trained as the setup says."""
    trained = setup.adapter is None
    width = setup.frozen_bytes
    found = []
    for linear in architecture.linears():
        adapter = setup.adapter if setup.adapter is not None and setup.adapter.adapts(linear.name) else None
        found.append(
            matrix(
                linear.in_features,
                linear.out_features,
                bias=linear.bias,
                width=width,
                trained=trained,
                adapter=adapter,
                stored=setup.stored,
            )
        )
    num_attention = 2 if architecture.qkv_name is not None else 4
    per_norm = 2 if architecture.norm == "layer" else 1
    norms_trained, norms_width = whole(setup, "norms")
    vectors = [Parameter(size, norms_width, trained=norms_trained) for size in architecture.layer_vectors]
    norms = [vectors[start : start + per_norm] for start in range(0, len(vectors), per_norm)]
    return Layer(found[:num_attention], found[num_attention:], _experts(architecture, setup), norms)


def whole(setup: Setup, part: Literal["embeddings", "head", "norms"]) -> tuple[bool, int]:
    """Whether a part is trained whole, and the bytes of its numbers: float32 where it is."""
    trained = setup.adapter is None or part in setup.adapter.beside
    return trained, 4 if trained else setup.frozen_bytes


def _experts(architecture: Architecture, setup: Setup) -> Experts | None:
    if not architecture.num_experts:
        return None
    trained, width = setup.adapter is None, setup.frozen_bytes
    up, down = architecture.fused()
    ups, downs = (_update(one, setup) for one in (up, down))
    return Experts(
        num_experts=architecture.num_experts,
        per_token=architecture.experts_per_token,
        hidden=architecture.hidden,
        inner=architecture.expert_intermediate,
        router=Parameter(architecture.router_weights, width, trained=trained),
        up=Parameter(up.num_weights, width, trained=trained),
        down=Parameter(down.num_weights, width, trained=trained),
        ups=ups,
        downs=downs,
    )


def _update(fused: Fused, setup: Setup) -> tuple[Parameter, Parameter] | None:
    if setup.adapter is None or setup.adapter.targets is not None:
        return None
    wide = setup.adapter.rank * fused.num_experts
    return (
        Parameter(wide * fused.in_features, 4, trained=True),
        Parameter(wide * fused.out_features, 4, trained=True),
    )


def forward_of(
    tape: Tape, architecture: Architecture, layer: Layer, setup: Setup, positions: Positions
) -> Callable[[Tensor], Tensor]:
    """The layer as a function of its input."""

    def norm(x: Tensor, number: int) -> Tensor:
        with tape.counted_as("norms"):
            return normed(tape, x, layer.norms[number], kind=architecture.norm)

    def attention(x: Tensor) -> Tensor:
        with tape.counted_as("attention"):
            return _attention(tape, x, architecture, layer, setup, positions)

    def feed_forward(x: Tensor) -> Tensor:
        with tape.counted_as("feed_forward"):
            if layer.experts is not None:
                return mixture(tape, x, layer.experts)
            return dense(tape, x, layer.feed_forward, gated=architecture.gated)

    def before(x: Tensor) -> Tensor:
        residual = x
        x = norm(x, 0)
        x = attention(x)
        x = add(tape, residual, x)
        residual = x
        x = norm(x, 1)
        x = feed_forward(x)
        return add(tape, residual, x)

    def around(x: Tensor) -> Tensor:
        residual = x
        x = norm(x, 0)
        x = attention(x)
        x = norm(x, 1)
        x = add(tape, residual, x)
        residual = x
        x = norm(x, 2)
        x = feed_forward(x)
        x = norm(x, 3)
        return add(tape, residual, x)

    def after(x: Tensor) -> Tensor:
        residual = x
        x = attention(x)
        x = norm(x, 0)
        x = add(tape, residual, x)
        residual = x
        x = feed_forward(x)
        x = norm(x, 1)
        return add(tape, residual, x)

    def parallel(x: Tensor) -> Tensor:
        attended = attention(norm(x, 0))
        fed = feed_forward(norm(x, 1))
        return add(tape, add(tape, fed, attended), x)

    return {"before": before, "around": around, "after": after, "parallel": parallel}[architecture.norms]


def _attention(
    tape: Tape, x: Tensor, architecture: Architecture, layer: Layer, setup: Setup, positions: Positions
) -> Tensor:
    q, k, v = _queries_keys_values(tape, x, architecture, layer)
    if architecture.qk_norm is not None:
        with tape.counted_as("norms"):
            q = normed(tape, q, layer.norms[-2], kind=architecture.norm)
            k = normed(tape, k, layer.norms[-1], kind=architecture.norm)
    share = architecture.rotary_share
    with tape.counted_as("rotary"):
        q, k = (turned(tape, q, *positions, share=share), turned(tape, k, *positions, share=share))
    heads = Heads(
        rows=setup.rows,
        length=setup.length,
        num_heads=architecture.num_heads,
        num_kv_heads=architecture.num_kv_heads,
        kernel=setup.attention,
        masked=setup.packed,
        soft_cap=architecture.attention_soft_cap is not None,
        joined=share < 1,
    )
    found = attend(tape, q, k, v, heads)
    return multiplied(tape, found, layer.attention[-1])


def _queries_keys_values(
    tape: Tape, x: Tensor, architecture: Architecture, layer: Layer
) -> tuple[Tensor, Tensor, Tensor]:
    if architecture.qkv_name is None:
        q, k, v = (view(tape, multiplied(tape, x, one)) for one in layer.attention[:3])
        return q, k, v
    tokens = x.numel // architecture.hidden
    all_ = multiplied(tape, x, layer.attention[0])
    keys = tokens * architecture.keys
    return part(tape, all_, tokens * architecture.queries), part(tape, all_, keys), part(tape, all_, keys)
