"""Eight-bit integers with outlier columns kept apart.

Source: Dettmers et al. 2022 (arXiv:2208.07339), section 3.
"""

from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from ftk.core.config import Section


class Int8(Section):
    """Frozen weights in eight bits beneath LoRA: half the memory of bf16, closer to it than four bits."""

    weight_bits: ClassVar[float] = 8.0
    block: ClassVar[int | None] = None
    """Weights that share a constant; None where each row of a matrix has one."""

    name: Literal["int8"] = "int8"
    """`int8`: LLM.int8()."""
    threshold: Annotated[float, Field(ge=0)] = 6.0
    """Inputs above this magnitude are multiplied in 16 bits; 0 keeps none apart."""

    def loading_config(self, compute_dtype: torch.dtype) -> object:
        """What transformers needs to quantize while it loads; outliers follow the type of the inputs."""
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_threshold=self.threshold)
