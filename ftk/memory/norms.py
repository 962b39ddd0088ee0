"""Norms on a tape, written as the models write them."""

from typing import Literal

from ftk.memory.ledger import Storage
from ftk.memory.operations import add, cast, mean, multiply, pointwise_of_output, square, weight
from ftk.memory.tape import Parameter, Tape, Tensor

Norm = Literal["rms", "rms_float", "layer"]


def normed(tape: Tape, x: Tensor, scales: list[Parameter], *, kind: Norm) -> Tensor:
    """The norm over as many numbers as its weight has.

    Source: Zhang and Sennrich 2019 (arXiv:1910.07467), section 4; Ba et al. 2016 (arXiv:1607.06450), equation 3; in
    the steps of `LlamaRMSNorm`, `Gemma2RMSNorm` and `torch.nn.LayerNorm`.
    """
    if kind == "layer":
        return _layer_norm(tape, x, scales)
    given, rows = x.width, x.numel // scales[0].numel
    x = cast(tape, x, 4)
    if kind == "rms_float":
        x = multiply(tape, x, _reciprocal_root(tape, x, rows))
        own = weight(tape, scales[0], 4)
        x = multiply(tape, x, add(tape, own, Tensor(None, 1, 4)))
        return cast(tape, x, given)
    x = multiply(tape, x, _reciprocal_root(tape, x, rows))
    return multiply(tape, _leaf(scales[0]), cast(tape, x, given))


def _reciprocal_root(tape: Tape, x: Tensor, rows: int) -> Tensor:
    variance = mean(tape, square(tape, x), rows)
    return pointwise_of_output(tape, add(tape, variance, Tensor(None, 1, 4)), scratch=2)


def _leaf(parameter: Parameter) -> Tensor:
    return Tensor(None, parameter.numel, parameter.width, parameter=parameter)


def _layer_norm(tape: Tape, x: Tensor, scales: list[Parameter]) -> Tensor:
    """One operation, in float32 under autocast on a GPU; keeps its input, and a mean and a deviation a row."""
    if tape.compute_width < 4 and tape.ledger.grain > 1:
        x = cast(tape, x, 4)
        parameters = [cast(tape, _leaf(one), 4) for one in scales]
    else:
        parameters = [_leaf(one) for one in scales]
    inputs = [x, *parameters]
    rows = x.numel // scales[0].numel
    sizes = [one.num_bytes if one.needs_grad else None for one in inputs]

    def backward(_: Storage) -> list[Storage | None]:
        return [None if size is None else tape.new(size) for size in sizes]

    return tape.apply(inputs, out=(x.numel, x.width), saved=inputs, extra=8 * rows, backward=backward)
