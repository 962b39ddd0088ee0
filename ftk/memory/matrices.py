"""Matrix products of a layer on a tape: plain, quantized, and with a low-rank update beside them."""

from dataclasses import dataclass

from ftk.memory.ledger import Storage
from ftk.memory.operations import add, cast, dropped, product, scale
from ftk.memory.setup import Adapter, Stored
from ftk.memory.tape import Parameter, Tape, Tensor


@dataclass(slots=True)
class Matrix:
    """A weight of a product, with what stands beside it."""

    in_features: int
    out_features: int
    weight: Parameter
    bias: Parameter | None = None
    down: Parameter | None = None
    """The update's first thin matrix, A; None where there is no update."""
    up: Parameter | None = None
    stored: Stored | None = None
    dropout: bool = False
    """Whether the update's input is dropped at random."""


def matrix(
    in_features: int,
    out_features: int,
    *,
    bias: bool,
    width: int,
    trained: bool,
    adapter: Adapter | None,
    stored: Stored | None,
) -> Matrix:
    """A matrix with weights of `width` bytes, float32 updates beside it where there is an adapter."""
    rank = adapter.rank if adapter is not None else 0
    return Matrix(
        in_features,
        out_features,
        weight=Parameter(in_features * out_features, width, trained=trained),
        bias=Parameter(out_features, width, trained=trained) if bias else None,
        down=Parameter(rank * in_features, 4, trained=True) if adapter is not None else None,
        up=Parameter(rank * out_features, 4, trained=True) if adapter is not None else None,
        stored=stored,
        dropout=adapter is not None and adapter.dropout,
    )


def multiplied(tape: Tape, x: Tensor, by: Matrix) -> Tensor:
    """The product with what stands beside it, as PEFT computes it (`tuners/lora/layer.py`, `Linear.forward`)."""
    tokens = x.numel // by.in_features
    result = _base(tape, x, by, tokens)
    if by.down is None or by.up is None:
        return result
    if by.stored is not None and by.stored.block is not None:
        # PEFT copies what a 4-bit product gives (`tuners/lora/bnb.py`).
        result = scale(tape, result)
    # The update's input is cast to its weights' float32, and under autocast back again for the product, which keeps a
    # 16-bit copy for each matrix that reads the same input.
    # Above quantized weights PEFT leaves that to autocast where it sees one, which it looks for on a GPU alone.
    if by.stored is None or tape.ledger.grain == 1:
        x = cast(tape, x, by.down.width)
    rank = by.down.numel // by.in_features
    if by.dropout:
        x = dropped(tape, x)
    numel = tokens * by.out_features
    # Nested, so that what is between is freed as soon as it is in PEFT.
    return add(tape, result, scale(tape, product(tape, product(tape, x, by.down, tokens * rank), by.up, numel)))


def _base(tape: Tape, x: Tensor, by: Matrix, tokens: int) -> Tensor:
    numel = tokens * by.out_features
    if by.stored is None:
        return product(tape, x, by.weight, numel, by.bias)
    given = x.width
    x = cast(tape, x, tape.compute_width)
    plain, size = by.weight.numel * tape.compute_width, x.num_bytes

    def backward(_: Storage) -> list[Storage | None]:
        # The weights are taken out of their format for the product, and dropped.
        unpacked = tape.new(plain)
        found = tape.new(size)
        del unpacked
        return [found]

    is_row_wise = by.stored.block is None
    # `MatMul8bitFp` and `MatMul8bitLt` of bitsandbytes keep the input by themselves.
    pinned = [x] if is_row_wise else []
    if is_row_wise and tape.ledger.grain > 1:
        # The input in 16 and in 8 bits, its magnitudes, and which of them are large; then sums in 32 and in 16 bits.
        quantized = tape.new(6 * x.numel)
        del quantized
        between = tape.new(x.numel + 6 * numel)
    else:
        between = tape.new(plain)
    result = tape.apply([x], out=(numel, tape.compute_width), backward=backward, pinned=pinned)
    del between
    return cast(tape, result, given)
