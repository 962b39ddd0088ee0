"""A model of which only the headers are read, and the tensors that are planned from several."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from ftk.merging.configuration import ModelName
from ftk.merging.layers import BUFFERS, EMBEDDINGS, HEADS, main_stack, stacks
from ftk.merging.method import Settings
from ftk.merging.safetensors_file import TensorSpec
from ftk.merging.stream import Checkpoint


@dataclass(frozen=True)
class OpenModel:
    """A model whose headers are read."""

    name: ModelName
    checkpoint: Checkpoint
    config: Mapping[str, Any]

    @cached_property
    def names(self) -> list[str]:
        """Its weights; a head that is tied to the embeddings is none."""
        is_tied = self.config.get("tie_word_embeddings") is True
        return [
            name
            for name in self.checkpoint.tensors
            if not BUFFERS.search(name) and not (is_tied and HEADS.search(name))
        ]

    @cached_property
    def embedding(self) -> str | None:
        """The tensor of the input embeddings."""
        return next((name for name in self.names if EMBEDDINGS.search(name)), None)

    @cached_property
    def stack(self) -> str | None:
        """Prefix of its layers."""
        return main_stack(self.names, self.config)

    @cached_property
    def num_layers(self) -> int:
        """Of its main stack; 0 where that cannot be told."""
        return stacks(self.names).get(self.stack, 0) if self.stack is not None else 0

    def spec(self, name: str) -> TensorSpec:
        """Dtype and shape of a tensor."""
        return self.checkpoint.tensors[name]


@dataclass(frozen=True)
class Input:
    """One model's tensor."""

    model: OpenModel
    name: str

    @property
    def spec(self) -> TensorSpec:
        return self.model.spec(self.name)


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of the output."""

    name: str
    spec: TensorSpec
    inputs: tuple[Input, ...]
    """Without the base."""
    base: Input | None
    parameters: tuple[Mapping[str, float], ...]
    """Of each input."""
    settings: Settings
    """Of the method, for this tensor, by their names in the file."""
    input_dtype: torch.dtype | None
    """What inputs are cast to first, where that loses something."""
    has_tokens: bool = False
    """Whether its rows are tokens, which are matched where tokenizers differ."""

    @property
    def is_copied(self) -> bool:
        """Whether it is no weight but whole numbers, which are taken from the first model."""
        return not self.spec.dtype.is_floating_point

    @property
    def all_inputs(self) -> tuple[Input, ...]:
        """The base first, where there is one."""
        return self.inputs if self.base is None else (self.base, *self.inputs)

    @property
    def input_bytes(self) -> int:
        """Of all inputs."""
        return sum(source.spec.num_bytes for source in self.all_inputs)
