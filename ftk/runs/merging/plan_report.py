"""`ftk merge --plan`: what a merge would read and write, and what memory it would need."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ftk.merging.merge import READ_BYTES
from ftk.merging.open_model import OpenModel, PlannedTensor

START_BYTES = 350 * 2**20
"""Python and torch before any tensor is read."""
CHUNK_BYTES = 64 * 2**20
"""Room in which a method works on a tensor piece by piece."""


@dataclass(frozen=True)
class PlanReport:
    """What there is to do."""

    method: str
    models: dict[str, int]
    """Bytes of weights by model."""
    output_bytes: int
    num_parameters: int
    peak_bytes: int
    """Estimate of the memory at the largest tensor."""
    tensors: list[dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "models": [{"model": name, "input_bytes": size} for name, size in self.models.items()],
            "output_bytes": self.output_bytes,
            "num_parameters": self.num_parameters,
            "peak_bytes": self.peak_bytes,
            "tensors": self.tensors,
        }


def plan_report(
    planned: Sequence[PlannedTensor], method: str, models: Sequence[OpenModel], *, loaded_bytes: int = 0
) -> PlanReport:
    """What a planned merge comes to.

    Args:
        planned: its tensors.
        method: its name.
        models: all models that are read.
        loaded_bytes: weights of a model that is loaded whole beforehand.
    """
    return PlanReport(
        method=method,
        models={str(model.name): model.checkpoint.num_bytes for model in models},
        output_bytes=sum(one.spec.num_bytes for one in planned),
        num_parameters=sum(one.spec.num_elements for one in planned),
        peak_bytes=max(_peak(planned), START_BYTES + loaded_bytes),
        tensors=[_tensor(one, method) for one in planned],
    )


def _peak(planned: Sequence[PlannedTensor]) -> int:
    """While a tensor is merged, the next ones are read, one waits to be written, and one is written."""
    inputs = [one.input_bytes for one in planned]
    outputs = [one.spec.num_bytes for one in planned]
    # What a method computes on a whole tensor, in float32.
    working = [4 * one.spec.num_elements for one in planned]
    steps = range(len(planned))
    ahead = min(READ_BYTES, sum(inputs))
    most = max(
        max(ahead, sum(inputs[at : at + 2])) + sum(outputs[max(0, at - 2) : at + 1]) + working[at] for at in steps
    )
    return START_BYTES + CHUNK_BYTES + most


def _tensor(one: PlannedTensor, method: str) -> dict[str, Any]:
    return {
        "name": one.name,
        "shape": list(one.spec.shape),
        "dtype": str(one.spec.dtype).removeprefix("torch."),
        "method": "copy" if one.is_copied else method,
        "base": str(one.base.model.name) if one.base is not None else None,
        "sources": [
            {"model": str(source.model.name), "tensor": source.name, **parameters}
            for source, parameters in zip(one.inputs, one.parameters, strict=True)
        ],
        "settings": dict(one.settings),
    }
