"""The merge itself: tensor by tensor from open models to a writer, the next one read while this one is merged."""

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from ftk.core.errors import RunError
from ftk.merging.configuration import ModelName
from ftk.merging.method import MergeError, Method
from ftk.merging.open_model import Input, OpenModel, PlannedTensor
from ftk.merging.stream import ShardWriter
from ftk.merging.tokens import TokenMatch, matched

READ_BYTES = 64 * 2**20
"""Inputs in memory at a time, where those of one tensor and the next are not more: while a norm of a thousand numbers
is merged there is no time to read a matrix."""


def merge_tensors(
    planned: Sequence[PlannedTensor],
    method: Method,
    writer: ShardWriter,
    *,
    seed: int,
    match: TokenMatch | None = None,
    models: Mapping[ModelName, OpenModel] | None = None,
    on_tensor: Callable[[int], None] = lambda number: None,
) -> None:
    """Merge and write all tensors.

    Args:
        planned: what they are merged from.
        method: how.
        writer: takes the results, in an order of its own.
        seed: of what is random. Each tensor has a generator of its own, so that their order does not matter.
        match: where tokens are, if the models' tokenizers differ.
        models: all models that `match` names.
        on_tensor: told how many are merged.

    Raises:
        ModelError: a source holds NaN or infinity.
        RunError: a result does.
        OSError: a result cannot be written.
    """
    by_name = {one.name: one for one in planned}
    for number, (one, tensors) in enumerate(_ahead([by_name[name] for name in writer.names]), start=1):
        if one.has_tokens and match is not None:
            tensors = _matched(one, tensors, match, models or {})
        result = _merged(one, tensors, method, seed=seed)
        addresses = {tensor.data_ptr() for tensor in tensors}
        del tensors
        if result.data_ptr() in addresses:
            writer.write(one.name, result, then=_release(one))
        else:
            _release(one)()
            writer.write(one.name, result)
        del result
        on_tensor(number)


def _ahead(planned: Sequence[PlannedTensor]) -> Iterator[tuple[PlannedTensor, list[Tensor]]]:
    """Each tensor with its inputs in memory, those of the next on their way; of small ones, those of several."""
    waiting, coming = deque(planned), deque[tuple[PlannedTensor, Future[list[Tensor]]]]()
    with ThreadPoolExecutor(max_workers=1) as pool:

        def fetch() -> None:
            one = waiting.popleft()
            coming.append((one, pool.submit(_inputs, one)))

        while waiting or coming:
            if not coming:
                fetch()
            one, inputs = coming.popleft()
            tensors = inputs.result()
            held = one.input_bytes + sum(after.input_bytes for after, _ in coming)
            while waiting and (not coming or held + waiting[0].input_bytes <= READ_BYTES):
                held += waiting[0].input_bytes
                fetch()
            yield one, tensors
            del tensors, inputs


def _inputs(one: PlannedTensor) -> list[Tensor]:
    for source in one.all_inputs:
        source.model.checkpoint.prefetch(source.name)
    return [_read(source) for source in one.all_inputs]


def _read(source: Input) -> Tensor:
    tensor = source.model.checkpoint.read(source.name)
    # This also brings its bytes into memory.
    source.model.checkpoint.require_finite(source.name, tensor)
    return tensor


def _release(one: PlannedTensor) -> Callable[[], None]:
    def release() -> None:
        for source in one.all_inputs:
            source.model.checkpoint.release(source.name)

    return release


def _matched(
    one: PlannedTensor, tensors: list[Tensor], match: TokenMatch, models: Mapping[ModelName, OpenModel]
) -> list[Tensor]:
    def read(name: ModelName) -> Tensor:
        # A tied head has no name of its own.
        model = models[name]
        own = one.name if one.name in model.names else str(model.embedding)
        return model.checkpoint.read(own)

    return matched(tensors, [source.model.name for source in one.all_inputs], match, read=read)


def _merged(one: PlannedTensor, tensors: list[Tensor], method: Method, *, seed: int) -> Tensor:
    if one.is_copied:
        return tensors[0]
    if one.input_dtype is not None:
        tensors = [tensor.to(one.input_dtype) for tensor in tensors]
    base, others = (None, tensors) if one.base is None else (tensors[0], tensors[1:])
    try:
        result = method.merge(
            others,
            base=base,
            parameters=one.parameters,
            settings=one.settings,
            generator=_generator(seed, one.name),
        ).to(one.spec.dtype)
    except MergeError as error:
        raise RunError(f"{one.name} cannot be merged: {error}") from error
    if result.numel() and not bool(result.sum().isfinite()) and not bool(result.isfinite().all()):
        raise RunError(
            f"{one.name} came out with NaN or infinity, though its sources have none. Weights may be too large, or "
            f"{str(one.spec.dtype).removeprefix('torch.')} too narrow: set out_dtype to bfloat16 or float32"
        )
    return result


def _generator(seed: int, name: str) -> torch.Generator:
    digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
    # Generators take 63 bits.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
