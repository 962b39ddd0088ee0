"""What a step sees of Accelerate, for one process on the CPU, without the state that Accelerate keeps for a process."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ftk.train.precision import FROZEN_DTYPES, Precision


class Alone:
    """What a step sees of Accelerate in a group of one process. Its own keeps one precision for a whole process."""

    def __init__(self, precision: Precision) -> None:
        self.device = torch.device("cpu")
        self.num_processes = 1
        self.scaler = None
        self._dtype = None if precision == "fp32" else FROZEN_DTYPES[precision]
        self.before_backward: Callable[[], None] = lambda: None

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", dtype=self._dtype or torch.bfloat16, enabled=self._dtype is not None)

    def backward(self, loss: Tensor) -> None:
        self.before_backward()
        torch.autograd.backward(loss)

    def reduce(self, value: Tensor, reduction: str) -> Tensor:
        """Over one process: the value itself."""
        return value

    def prepare(self, model: nn.Module) -> nn.Module:
        """As Accelerate's `prepare_model` wraps the forward of a model that computes in half precision."""
        if self._dtype is not None:
            from accelerate.utils import convert_outputs_to_fp32

            model.forward = convert_outputs_to_fp32(self.autocast()(model.forward))
        return model
