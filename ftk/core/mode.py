"""The mode of a model, in which dropout is or is not active."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Dropout is off within; afterwards every part of the model is in the mode in which it was.

    Parts are restored one by one, because a frozen part may rest in evaluation mode while others train.
    """
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
