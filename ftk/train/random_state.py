"""The state of every random generator that training draws from, as JSON values."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int, *, process_index: int = 0) -> None:
    """Seed Python, numpy and torch. Processes draw differently where `process_index` differs, for dropout's sake."""
    mixed = int(np.random.SeedSequence([seed, process_index]).generate_state(1)[0])
    random.seed(mixed)
    np.random.seed(mixed)
    torch.manual_seed(mixed)


def capture() -> dict[str, Any]:
    """The state of this process's generators: Python, numpy, torch on the CPU and on the current GPU."""
    version, words, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state = {
        "python": [version, list(words), gauss],
        "numpy": [name, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": _to_hex(torch.get_rng_state()),
    }
    if torch.cuda.is_available():
        state["cuda"] = _to_hex(torch.cuda.get_rng_state())
    return state


def restore(state: Mapping[str, Any]) -> None:
    """Put back what `capture` returned. A GPU's state is left alone where there is no GPU."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_from_hex(state["torch"]))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(_from_hex(state["cuda"]))


@contextmanager
def kept() -> Iterator[None]:
    """Whatever draws within leaves the generators as they were."""
    state = capture()
    try:
        yield
    finally:
        restore(state)


def _to_hex(state: torch.Tensor) -> str:
    return bytes(state.numpy()).hex()


def _from_hex(text: str) -> torch.Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8).clone()
