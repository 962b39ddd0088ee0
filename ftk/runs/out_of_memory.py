"""Running out of memory is a matter of the machine and the settings: one message, and not a defect's traceback."""

from collections.abc import Iterator
from contextlib import contextmanager

from ftk.core.errors import RunError
from ftk.train.rehearse import REMEDIES, is_out_of_memory

TRAIN_REMEDIES = f"{REMEDIES}. A run that had a checkpoint goes on from it"
USE_REMEDIES = (
    "Free the device of what else runs on it, make prompts shorter, or take a smaller model; CUDA_VISIBLE_DEVICES='' "
    "computes on the CPU"
)


@contextmanager
def out_of_memory_told(remedies: str) -> Iterator[None]:
    """Around work, or above a function as a decorator.

    Raises:
        RunError: the work ran out of memory; `remedies` says what to do.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not is_out_of_memory(error):
            raise
        said = str(error).strip().split("\n")[0]
        raise RunError(f"out of memory{f' ({said})' if said else ''}. {remedies}") from error
