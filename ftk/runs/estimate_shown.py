"""An estimate for a person."""

from ftk.memory.estimate import Estimate
from ftk.memory.units import shown
from ftk.runs.estimate import Question


def print_estimate(asked: Question, answer: Estimate) -> None:
    """Print what an estimate says."""
    print(f"{asked.numbers.name}: {answer.parameters:,} parameters, {answer.trainable_parameters:,} trained")
    for name, value in answer.per_device.bytes.as_json().items():
        print(f"{name.removesuffix('_bytes'):12} {shown(value):>10}")
    print(f"peak: {answer.peak_moment}")
