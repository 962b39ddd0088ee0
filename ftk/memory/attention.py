"""Attention on a tape, by kernel.

Source: transformers 5.23, `integrations/sdpa_attention.py` and `eager_attention_forward` of the models; what kernels
keep: Dao 2023 (arXiv:2307.08691), algorithm 1 (queries, keys, values, the output, and one float32 a query and
head instead of the matrix of probabilities).
"""

from dataclasses import dataclass

from ftk.memory.ledger import Storage
from ftk.memory.operations import add, cast, copied, joined, multiply, part, pointwise_of_output, scale
from ftk.memory.setup import Attention
from ftk.memory.tape import Tape, Tensor


@dataclass(frozen=True, slots=True)
class Heads:
    """Shapes of one attention."""

    rows: int
    length: int
    num_heads: int
    num_kv_heads: int
    kernel: Attention
    masked: bool
    """Whether a mask is given, beyond that no token sees what comes after it."""
    soft_cap: bool
    joined: bool
    """Whether queries and keys were joined of two parts, which puts each head's tokens side by side in memory."""

    @property
    def scores(self) -> int:
        """Pairs of a query and a key, over all heads."""
        return self.rows * self.num_heads * self.length * self.length


def attend(tape: Tape, q: Tensor, k: Tensor, v: Tensor, heads: Heads) -> Tensor:
    """What each token takes from those before it."""
    if heads.kernel == "eager":
        return _eager(tape, q, k, v, heads)
    return _fused(tape, q, k, v, heads)


def turned(tape: Tape, x: Tensor, cos: Tensor, sin: Tensor, *, share: float, is_joined: bool) -> Tensor:
    """Queries or keys turned by their positions (`apply_rotary_pos_emb`), a part of each head where `share` is below 1.

    Cosines and sines are kept, since they take no gradient themselves; queries and keys are not.
    """
    if is_joined:
        moved = int(x.numel * share)
        rotated, rest = part(tape, x, moved), part(tape, x, x.numel - moved)
        return joined(tape, [_turned(tape, rotated, cos, sin), rest])
    return _turned(tape, x, cos, sin)


def _turned(tape: Tape, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return add(tape, multiply(tape, x, cos), multiply(tape, _half_turned(tape, x), sin))


def _half_turned(tape: Tape, x: Tensor) -> Tensor:
    first, second = part(tape, x, x.numel // 2), part(tape, x, x.numel // 2)
    return joined(tape, [scale(tape, second), first])


def _fused(tape: Tape, q: Tensor, k: Tensor, v: Tensor, heads: Heads) -> Tensor:
    """SDPA and flash attention: a kernel that never holds all probabilities."""
    repeats = heads.num_heads // heads.num_kv_heads
    if repeats > 1 and heads.masked and heads.kernel == "sdpa":
        # Kernels that take a mask want a key for each query's head.
        k, v = _repeated(tape, k, repeats), _repeated(tape, v, repeats)
    q, k, v = (cast(tape, one, tape.compute_width) for one in (q, k, v))
    sizes = [one.num_bytes if one.needs_grad else None for one in (q, k, v)]
    statistics = 4 * heads.rows * heads.length * heads.num_heads
    # The mask of yes and no becomes one of numbers to add, anew in each layer.
    mask = heads.rows * heads.length**2 * tape.compute_width if heads.masked and heads.kernel == "sdpa" else 0

    # On a GPU the gradient of queries is summed in float32, and where keys are shared, theirs and that of values are
    # first made for each head (`mha_bwd`, aten/src/ATen/native/transformers/cuda/flash_attn/flash_api.cpp).
    is_gpu, repeated = tape.ledger.grain > 1, k.numel < q.numel
    scratch = (4 * q.numel + (2 * q.num_bytes if repeated else 0)) if is_gpu else 0

    def backward(_: Storage) -> list[Storage | None]:
        between = tape.new(scratch)
        found = [None if size is None else tape.new(size) for size in sizes]
        del between
        return found

    found = tape.apply(
        [q, k, v],
        out=(q.numel, q.width),
        saved=[q, k, v],
        saves_out=True,
        extra=statistics + mask,
        backward=backward,
    )
    # The output lies as the queries do; the next product wants each token's heads side by side.
    return copied(tape, found) if heads.joined else found


def _repeated(tape: Tape, x: Tensor, repeats: int) -> Tensor:
    """Keys or values once for each head of queries (`repeat_kv`); the gradient is summed over the repeats."""
    size = x.num_bytes
    return tape.apply([x], out=(x.numel * repeats, x.width), backward=lambda g: [tape.new(size)])


def _eager(tape: Tape, q: Tensor, k: Tensor, v: Tensor, heads: Heads) -> Tensor:
    repeats = heads.num_heads // heads.num_kv_heads
    if repeats > 1:
        k, v = _repeated(tape, k, repeats), _repeated(tape, v, repeats)
    scores = scale(tape, _batched(tape, q, k, heads.scores, heads, copies=(True, repeats == 1)))
    if heads.soft_cap:
        scores = scale(tape, scores)
        scores = pointwise_of_output(tape, scores)
        scores = scale(tape, scores)
    mask = Tensor(None, heads.rows * heads.length**2, tape.compute_width)
    scores = add(tape, scores, mask)
    scores = cast(tape, pointwise_of_output(tape, _as_float(tape, scores), scratch=1), scores.width)
    result = _batched(tape, scores, v, q.numel, heads, copies=(False, repeats == 1))
    return copied(tape, result)


def _as_float(tape: Tape, x: Tensor) -> Tensor:
    return cast(tape, x, 4)


def _batched(tape: Tape, a: Tensor, b: Tensor, out: int, heads: Heads, *, copies: tuple[bool, bool]) -> Tensor:
    """A product for each row and head. Heads that lie side by side within a token are first put apart."""
    a, b = (cast(tape, one, tape.compute_width) for one in (a, b))
    if heads.rows > 1:
        a, b = (copied(tape, one) if copy else one for one, copy in zip((a, b), copies, strict=True))
    sizes = [one.num_bytes if one.needs_grad else None for one in (a, b)]
    return tape.apply(
        [a, b],
        out=(out, tape.compute_width),
        saved=[a, b],
        backward=lambda g: [None if size is None else tape.new(size) for size in sizes],
    )
