"""Measuring the model in the midst of training without a trace."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from ftk.train import random_state


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Dropout is off within and as before after it; random generators are left as they were."""
    was_training = model.training
    model.eval()
    try:
        with random_state.kept(), torch.no_grad():
            yield
    finally:
        model.train(was_training)
