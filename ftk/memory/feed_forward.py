"""The feed-forward part on a tape: dense, or a router with experts."""

from dataclasses import dataclass

from ftk.memory.matrices import Matrix, multiplied
from ftk.memory.operations import (
    cast,
    multiply,
    part,
    pointwise,
    pointwise_of_output,
    product,
)
from ftk.memory.tape import Parameter, Tape, Tensor


def dense(tape: Tape, x: Tensor, matrices: list[Matrix], *, gated: bool) -> Tensor:
    """Up, an activation, and down; with a gate the activation of one product times another."""
    *up, down = matrices
    if not gated:
        return multiplied(tape, pointwise(tape, multiplied(tape, x, up[0])), down)
    if len(up) == 1:
        both = multiplied(tape, x, up[0])
        gate, rest = part(tape, both, both.numel // 2), part(tape, both, both.numel // 2)
        rest = multiply(tape, rest, pointwise(tape, gate))
        return multiplied(tape, rest, down)
    return multiplied(
        tape, multiply(tape, pointwise(tape, multiplied(tape, x, up[0])), multiplied(tape, x, up[1])), down
    )


@dataclass(slots=True)
class Experts:
    """The weights of all experts of a layer, each kind in one parameter, and the router's."""

    num_experts: int
    per_token: int
    hidden: int
    inner: int
    router: Parameter
    up: Parameter
    """Gate and up side by side."""
    down: Parameter
    ups: tuple[Parameter, Parameter] | None = None
    """The thin matrices of the update beside `up`; None where there is none."""
    downs: tuple[Parameter, Parameter] | None = None


def mixture(tape: Tape, x: Tensor, experts: Experts) -> Tensor:
    """Each token through the experts that its router chooses, sorted by expert, in grouped products.

    These products are not under autocast: they have the type in which the experts are stored. Source: `MixtralExperts`,
    `MixtralTopKRouter` and `grouped_mm_experts_forward` of transformers 5.23 (`integrations/moe.py`).
    """
    tokens = x.numel // experts.hidden
    chosen = tokens * experts.per_token
    with tape.counted_as("router"):
        shares = _taken(tape, _routed(tape, x, experts, tokens), chosen, index_bytes=8 * chosen)
    mine = _taken(tape, x, chosen * experts.hidden, index_bytes=8 * chosen)
    found = _grouped(tape, mine, experts.up, experts.ups, chosen * 2 * experts.inner)
    gate, rest = part(tape, found, chosen * experts.inner), part(tape, found, chosen * experts.inner)
    found = multiply(tape, pointwise(tape, gate), rest)
    del gate, rest
    found = _grouped(tape, found, experts.down, experts.downs, chosen * experts.hidden)
    found = multiply(tape, found, shares)
    found = _taken(tape, found, found.numel, index_bytes=8 * chosen)
    return cast(tape, _summed(tape, found, x.numel), x.width)


def _routed(tape: Tape, x: Tensor, experts: Experts, tokens: int) -> Tensor:
    logits = product(tape, x, experts.router, tokens * experts.num_experts)
    probabilities = pointwise_of_output(tape, cast(tape, logits, 4), scratch=1)
    size = probabilities.num_bytes
    chosen = tokens * experts.per_token
    best = tape.apply([probabilities], out=(chosen, 4), extra=8 * chosen, backward=lambda g: [tape.new(size)])
    return multiply(tape, best, Tensor(None, tokens, 4))


def _taken(tape: Tape, x: Tensor, numel: int, *, index_bytes: int) -> Tensor:
    """Some rows; the gradient is put into a tensor of zeros."""
    size = x.num_bytes
    return tape.apply([x], out=(numel, x.width), extra=index_bytes, backward=lambda g: [tape.new(size)])


def _summed(tape: Tape, x: Tensor, numel: int) -> Tensor:
    """The sum over the experts of a token; its gradient is repeated without being copied."""
    return tape.apply([x], out=(numel, x.width), backward=lambda g: [g])


Thin = tuple[Parameter, Parameter]


def _grouped(tape: Tape, x: Tensor, stacked: Parameter, update: Thin | None, out: int) -> Tensor:
    """The product of each token with its expert's part of a parameter, in that parameter's type."""
    experts = Tensor(None, stacked.numel, stacked.width, parameter=stacked)
    if update is not None:
        experts = _folded(tape, experts, update)
    x = cast(tape, x, experts.width)
    sizes = [each.num_bytes if each.needs_grad else None for each in (x, experts)]
    saved = [other for other, needed in ((experts, x.needs_grad), (x, experts.needs_grad)) if needed]
    return tape.apply(
        [x, experts],
        out=(out, experts.width),
        saved=saved,
        backward=lambda g: [None if size is None else tape.new(size) for size in sizes],
    )


def _folded(tape: Tape, experts: Tensor, update: Thin) -> Tensor:
    """Weights with their update added: a whole copy of the experts, kept for the backward pass.

    Source: PEFT 0.21, `_LoraFactorsProxy` (`tuners/lora/layer.py`).
    """
    leaves = [Tensor(None, one.numel, one.width, parameter=one) for one in update]
    down, up = (cast(tape, leaf, experts.width) for leaf in leaves)
    sizes = [down.num_bytes, up.num_bytes]
    return tape.apply(
        [down, up],
        out=(experts.numel, experts.width),
        saved=[up, down],
        backward=lambda g: [tape.new(size) for size in sizes],
    )
