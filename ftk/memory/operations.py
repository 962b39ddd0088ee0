"""Operations of torch as a tape takes them: what each makes, keeps, and needs for its gradients.

Source: `derivatives.yaml` and `FunctionsManual.cpp` of torch 2.13. Gradients have the type of what they belong to: one
that comes out in another is cast, as the engine does (`validate_outputs`).
"""

from collections.abc import Sequence

from ftk.memory.ledger import Storage
from ftk.memory.tape import Parameter, Tape, Tensor


def view(tape: Tape, x: Tensor) -> Tensor:
    """The same numbers in another shape."""
    return tape.apply([x], out=None, backward=lambda g: [g])


def copied(tape: Tape, x: Tensor, *, copies_gradient: bool = True) -> Tensor:
    """A copy with the numbers in another order, whose gradient is put back the same way."""
    size = x.num_bytes
    return tape.apply([x], out=(x.numel, x.width), backward=lambda g: [tape.new(size) if copies_gradient else g])


def cast(tape: Tape, x: Tensor, width: int) -> Tensor:
    """The tensor in another type; itself where it has that type."""
    if x.width == width:
        return x
    size = x.num_bytes
    return tape.apply([x], out=(x.numel, width), backward=lambda g: [tape.new(size)])


def add(tape: Tape, a: Tensor, b: Tensor) -> Tensor:
    """A sum. Its gradient is that of both, shared."""
    width = max(a.width, b.width)
    numel = max(a.numel, b.numel)
    sizes = [None if one.width == width and one.numel == numel else one.num_bytes for one in (a, b)]
    return tape.apply(
        [a, b], out=(numel, width), backward=lambda g: [g if size is None else tape.new(size) for size in sizes]
    )


def scale(tape: Tape, x: Tensor) -> Tensor:
    """Every number times the same plain number; nothing is kept."""
    size = x.num_bytes
    return tape.apply([x], out=(x.numel, x.width), backward=lambda g: [tape.new(size)])


def multiply(tape: Tape, a: Tensor, b: Tensor) -> Tensor:
    """A product, number by number; the smaller one is repeated. Each is kept for the gradient of the other."""
    width, numel = max(a.width, b.width), max(a.numel, b.numel)
    needs = (a.needs_grad, b.needs_grad)
    kinds = [(one.numel, one.width) for one in (a, b)]
    saved = [other for other, needed in ((b, needs[0]), (a, needs[1])) if needed]

    def backward(_: Storage) -> Sequence[Storage | None]:
        whole = [tape.new(numel * width) if needed else None for needed in needs]
        return [
            one if one is None or (own == numel and size == width) else tape.new(own * size)
            for one, (own, size) in zip(whole, kinds, strict=True)
        ]

    return tape.apply([a, b], out=(numel, width), saved=saved, backward=backward)


def pointwise(tape: Tape, x: Tensor) -> Tensor:
    """A function of each number of which the input is kept: SiLU, GELU."""
    size = x.num_bytes
    return tape.apply([x], out=(x.numel, x.width), saved=[x], backward=lambda g: [tape.new(size)])


def pointwise_of_output(tape: Tape, x: Tensor, *, scratch: int = 0) -> Tensor:
    """A function of each number of which the output is kept: tanh, the reciprocal root, softmax."""
    size = x.num_bytes

    def backward(_: Storage) -> Sequence[Storage | None]:
        between = [tape.new(size) for _ in range(scratch)]
        found = tape.new(size)
        del between
        return [found]

    return tape.apply([x], out=(x.numel, x.width), saves_out=True, backward=backward)


def dropped(tape: Tape, x: Tensor) -> Tensor:
    """Dropout: which numbers stay is kept, a byte each on a GPU; a CPU keeps their factors (`_dropout_impl`)."""
    size = x.num_bytes
    kept = x.numel if tape.ledger.grain > 1 else size
    return tape.apply([x], out=(x.numel, x.width), extra=kept, backward=lambda g: [tape.new(size)])


def square(tape: Tape, x: Tensor) -> Tensor:
    """The second power; its gradient is `g * (2 * x.pow(1))`, each part a tensor (`pow_backward`)."""
    size = x.num_bytes

    def backward(_: Storage) -> Sequence[Storage | None]:
        power, doubled = tape.new(size), tape.new(size)
        found = tape.new(size)
        del power, doubled
        return [found]

    return tape.apply([x], out=(x.numel, x.width), saved=[x], backward=backward)


def mean(tape: Tape, x: Tensor, rows: int) -> Tensor:
    """The mean of each row; its gradient is repeated over the row."""
    size = x.num_bytes
    return tape.apply([x], out=(rows, x.width), backward=lambda g: [tape.new(size)])


def part(tape: Tape, x: Tensor, numel: int) -> Tensor:
    """A part of the numbers. Its gradient is put into a tensor of zeros."""
    whole = x.num_bytes
    found = tape.apply([x], out=None, backward=lambda g: [tape.new(whole)])
    found.numel = numel
    return found


def joined(tape: Tape, parts: Sequence[Tensor]) -> Tensor:
    """Several tensors as one. Their gradients are views of its own."""
    numel = sum(one.numel for one in parts)
    count = len(parts)
    return tape.apply(list(parts), out=(numel, parts[0].width), backward=lambda g: [g] * count)


def weight(tape: Tape, parameter: Parameter, width: int) -> Tensor:
    """A weight in the type of the product. Under autocast a trained one is cast once for the whole forward pass."""
    leaf = Tensor(None, parameter.numel, parameter.width, parameter=parameter)
    if parameter.width == width:
        return leaf
    casts = tape.casts
    if casts is None or not parameter.trained:
        return cast(tape, leaf, width)
    if id(parameter) not in casts:
        casts[id(parameter)] = cast(tape, leaf, width)
    return casts[id(parameter)]


def product(tape: Tape, x: Tensor, matrix: Parameter, out_numel: int, bias: Parameter | None = None) -> Tensor:
    """A matrix product with a weight, in the type of the computation (`addmm`, under autocast)."""
    width = tape.compute_width
    x = cast(tape, x, width)
    w = weight(tape, matrix, width)
    inputs = [x, w] + ([weight(tape, bias, width)] if bias is not None else [])
    sizes = [one.num_bytes if one.needs_grad else None for one in inputs]
    saved = [other for other, needed in ((w, x.needs_grad), (x, w.needs_grad)) if needed]
    return tape.apply(
        inputs,
        out=(out_numel, width),
        saved=saved,
        backward=lambda g: [None if size is None else tape.new(size) for size in sizes],
    )
