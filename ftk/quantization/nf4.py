"""Four-bit NormalFloat, the storage of QLoRA.

Source: Dettmers et al. 2023 (arXiv:2305.14314), section 3.
"""

from typing import ClassVar, Literal

import torch

from ftk.core.config import Section


class Nf4(Section):
    """Frozen weights in four bits, with which LoRA becomes QLoRA: a quarter of the memory of bf16."""

    weight_bits: ClassVar[float] = 4.0
    block: ClassVar[int | None] = 64
    """Weights that share a constant."""

    name: Literal["nf4"] = "nf4"
    """`nf4`: four-bit NormalFloat in blocks of 64."""
    double: bool = True
    """Quantize the blocks' constants too: 0.127 instead of 0.5 bits a parameter for them."""

    def loading_config(self, compute_dtype: torch.dtype) -> object:
        """What transformers needs to quantize while it loads; products are computed in `compute_dtype`."""
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=self.double,
            bnb_4bit_compute_dtype=compute_dtype,
            bnb_4bit_quant_storage=torch.uint8,
        )
