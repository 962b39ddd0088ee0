"""The output head on a tape, chunk by chunk, as `ftk/numerics/head.py` computes it."""

from collections.abc import Callable

from ftk.memory.ledger import Storage
from ftk.memory.matrices import Matrix, multiplied
from ftk.memory.operations import cast, part, pointwise_of_output, scale
from ftk.memory.setup import Setup
from ftk.memory.tape import Parameter, Tape, Tensor
from ftk.numerics.head import Budget

UNKNOWN_GPU = 80 * 2**30
"""Memory of the device where none is named: its sixteenth bounds the logits that are kept."""


def budget_of(setup: Setup, vocabulary: int) -> Budget:
    """How much memory logits may take in a step."""
    if setup.loss_chunk is not None:
        return Budget.of_chunk(setup.loss_chunk, vocabulary)
    return Budget.for_memory(setup.device, setup.device_bytes or UNKNOWN_GPU, vocabulary)


def scored(tape: Tape, hidden: Tensor, head: Matrix, *, setup: Setup, soft_cap: bool) -> list[Tensor]:
    """Log-probabilities of all scored tokens, a tensor for each chunk; `hidden` holds their states."""
    vocabulary, width = head.out_features, head.in_features
    budget = budget_of(setup, vocabulary)
    chunk, kept_bytes = budget.chunk_tokens, budget.kept_bytes
    is_trained = head.weight.trained or head.down is not None
    found = []
    for start in range(0, setup.scored, chunk):
        rows = min(chunk, setup.scored - start)
        one = part(tape, hidden, rows * width)
        score = _score(tape, head, rows, soft_cap=soft_cap)
        if not is_trained:
            found.append(_frozen(tape, one, score))
        elif setup.scored * vocabulary * 4 > kept_bytes:
            found.append(tape.checkpoint(score, one))
        else:
            found.append(score(one))
    return found


def _score(tape: Tape, head: Matrix, rows: int, *, soft_cap: bool) -> Callable[[Tensor], Tensor]:
    def score(x: Tensor) -> Tensor:
        logits = multiplied(tape, x, head)
        if soft_cap:
            logits = scale(tape, pointwise_of_output(tape, scale(tape, cast(tape, logits, 4))))
        return _target_logps(tape, logits, rows)

    return score


def _target_logps(tape: Tape, logits: Tensor, rows: int) -> Tensor:
    """float32 logits are overwritten by their exponentials; 16-bit ones stay, and get exponentials in float32."""
    is_float = logits.width == 4
    exps_bytes, size = 4 * logits.numel, logits.num_bytes

    def backward(_: Storage) -> list[Storage | None]:
        if is_float:
            return [tape.kept_of(0)]
        exps = tape.new(exps_bytes)
        found = tape.new(size)
        del exps
        return [found]

    statistics = tape.new(rows * (4 + 8 + 4 + 4 + 1))
    if not is_float:
        exps = tape.new(exps_bytes)
        del exps
    found = tape.apply([logits], out=(rows, 4), saved=[logits], extra=rows * 12, backward=backward)
    del statistics
    return found


def _frozen(tape: Tape, hidden: Tensor, score: Callable[[Tensor], Tensor]) -> Tensor:
    """Gradients to the hidden states are taken at once, and they alone are kept."""
    size = hidden.num_bytes
    leaf = Parameter(hidden.numel, hidden.width, trained=True, kind="logits")
    logps = score(Tensor(hidden.storage, hidden.numel, hidden.width, parameter=leaf))
    rows = logps.numel
    tape.backward(logps)
    del logps
    kept = Tensor(leaf.grad, hidden.numel, hidden.width)
    result = tape.apply([hidden], out=(rows, 4), saved=[kept], backward=lambda g: [tape.new(size)])
    return result
