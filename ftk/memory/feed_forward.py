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
    view,
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
    """Each token through the experts that its router chooses, one expert after another.

    Experts are taken to share the tokens evenly. Source: `MixtralExperts` and `MixtralTopKRouter`.
    """
    tokens = x.numel // experts.hidden
    chosen = tokens * experts.per_token
    shares = _routed(tape, x, experts, tokens)
    total = Tensor(tape.new(x.num_bytes), x.numel, x.width)
    each = max(1, chosen // experts.num_experts)
    for _ in range(min(experts.num_experts, chosen)):
        total = _through_one(tape, x, shares, total, experts, each)
    return view(tape, total)


def _routed(tape: Tape, x: Tensor, experts: Experts, tokens: int) -> Tensor:
    logits = product(tape, x, experts.router, tokens * experts.num_experts)
    probabilities = pointwise_of_output(tape, cast(tape, logits, 4), scratch=1)
    size = probabilities.num_bytes
    chosen = tokens * experts.per_token
    best = tape.apply([probabilities], out=(chosen, 4), extra=8 * chosen, backward=lambda g: [tape.new(size)])
    return multiply(tape, best, Tensor(None, tokens, 4))


def _through_one(tape: Tape, x: Tensor, shares: Tensor, total: Tensor, experts: Experts, tokens: int) -> Tensor:
    mine = _taken(tape, x, tokens * experts.hidden, index_bytes=8 * tokens)
    both = _by_expert(tape, mine, experts.up, experts.num_experts, tokens * 2 * experts.inner)
    gate, rest = part(tape, both, tokens * experts.inner), part(tape, both, tokens * experts.inner)
    inner = multiply(tape, pointwise(tape, gate), rest)
    found = _by_expert(tape, inner, experts.down, experts.num_experts, tokens * experts.hidden)
    share = _taken(tape, shares, tokens, index_bytes=16 * tokens)
    found = multiply(tape, found, share)
    found = cast(tape, found, total.width)
    size = found.num_bytes
    # The sum is written in place; what was added takes its part of the gradient.
    return tape.apply([total, found], out=None, extra=8 * tokens, like=total, backward=lambda g: [g, tape.new(size)])


def _taken(tape: Tape, x: Tensor, numel: int, *, index_bytes: int) -> Tensor:
    """Some rows; the gradient is put into a tensor of zeros."""
    size = x.num_bytes
    return tape.apply([x], out=(numel, x.width), extra=index_bytes, backward=lambda g: [tape.new(size)])


def _by_expert(tape: Tape, x: Tensor, stacked: Parameter, num_experts: int, out: int) -> Tensor:
    """The product with one expert's part of a parameter; that part's gradient is put into zeros for all experts."""
    width = tape.compute_width
    x = cast(tape, x, width)
    whole = stacked.numel * stacked.width
    leaf = Tensor(None, stacked.numel, stacked.width, parameter=stacked)
    one = tape.apply([leaf], out=None, backward=lambda g: [tape.new(whole)])
    one.numel = stacked.numel // num_experts
    one = cast(tape, one, width)
    sizes = [each.num_bytes if each.needs_grad else None for each in (x, one)]
    saved = [other for other, needed in ((one, x.needs_grad), (x, one.needs_grad)) if needed]
    return tape.apply(
        [x, one],
        out=(out, width),
        saved=saved,
        backward=lambda g: [None if size is None else tape.new(size) for size in sizes],
    )
