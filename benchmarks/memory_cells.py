"""The cells of memory.py: shapes of models, and choices of everything that decides what a step takes."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ftk.core.types import Batch, Example
from ftk.data.collate import collate
from ftk.recipe.load_values import recipe_of
from ftk.recipe.schema import Recipe

SHARED = {"num_hidden_layers": 4, "max_position_embeddings": 2048, "pad_token_id": 0}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "model_type": "llama",
        "hidden_size": 384,
        "intermediate_size": 1024,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "vocab_size": 16000,
        "tie_word_embeddings": False,
    },
    "qwen2 tied": {
        "model_type": "qwen2",
        "hidden_size": 256,
        "intermediate_size": 1408,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "vocab_size": 24000,
        "tie_word_embeddings": True,
    },
    "qwen3": {
        "model_type": "qwen3",
        "hidden_size": 384,
        "intermediate_size": 1152,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 20000,
        "tie_word_embeddings": False,
    },
    "gemma2": {
        "model_type": "gemma2",
        "hidden_size": 256,
        "intermediate_size": 1024,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 24000,
        "sliding_window": 256,
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "hidden_size": 256,
        "intermediate_size": 1536,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 64,
        "vocab_size": 24000,
        "sliding_window": 256,
    },
    "gpt_neox": {
        "model_type": "gpt_neox",
        "hidden_size": 320,
        "intermediate_size": 1280,
        "num_attention_heads": 5,
        "vocab_size": 12000,
        "tie_word_embeddings": False,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "hidden_size": 256,
        "intermediate_size": 768,
        "moe_intermediate_size": 192,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "vocab_size": 16000,
        "tie_word_embeddings": False,
    },
}
GPU_SHAPES: dict[str, dict[str, Any]] = {
    "llama 1B": {
        "model_type": "llama",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 128256,
        "tie_word_embeddings": True,
    },
    "llama 8B": {
        "model_type": "llama",
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
    },
}
CHOICES: dict[str, tuple[Any, ...]] = {
    "shape": tuple(SHAPES),
    "tuning": ("full", "lora", "qlora"),
    "checkpointing": (False, True),
    "length": (128, 256, 512),
    "rows": (1, 2, 4),
    "optimizer": ("adamw", "adamw_8bit", "sgd"),
    "packed": (False, True),
}
NUM_CELLS = 60
IN_BF16 = (
    ("llama", "full", False, 64, 2, "adamw", False),
    ("llama", "lora", False, 64, 2, "adamw_8bit", True),
    ("qwen2 tied", "qlora", True, 64, 1, "adamw", False),
    ("gemma3", "lora", True, 64, 1, "sgd", False),
    ("gpt_neox", "full", True, 64, 2, "sgd", True),
    ("qwen3_moe", "lora", False, 64, 1, "adamw", False),
)
"""In the order of `CHOICES`."""
IN_INT8 = (
    ("llama", "int8", False, 256, 2, "adamw", False),
    ("qwen2 tied", "int8", True, 128, 4, "adamw_8bit", False),
    ("gpt_neox", "int8", True, 256, 1, "sgd", True),
)
"""LoRA over weights in eight bits, which the product of all choices is without."""
QUANTIZATION = {"qlora": "nf4", "int8": "int8"}


@dataclass(frozen=True)
class Cell:
    """One model under one choice of everything."""

    shape: str
    tuning: str
    checkpointing: bool
    length: int
    rows: int
    optimizer: str
    packed: bool
    precision: str

    @property
    def name(self) -> str:
        words = [self.shape, self.tuning, self.precision, f"{self.rows} x {self.length}", self.optimizer]
        words += ["packed"] if self.packed else []
        return ", ".join([*words, "checkpointing"] if self.checkpointing else words)


def choose_cells() -> list[Cell]:
    """Cell after cell the one, of some drawn ones, that brings most pairs and triples not seen yet."""
    draw = random.Random(0)
    everything = list(itertools.product(*CHOICES.values()))
    seen: set[tuple[tuple[int, Any], ...]] = set()
    cells = []
    for _ in range(NUM_CELLS):
        drawn = draw.sample(everything, 300)
        best = max(drawn, key=lambda one: sum(key not in seen for key in _parts(one)))
        seen.update(_parts(best))
        cells.append(Cell(*best, "fp32"))
    return cells + [Cell(*one, "bf16") for one in IN_BF16] + [Cell(*one, "fp32") for one in IN_INT8]


def _parts(one: tuple[Any, ...]) -> Iterator[tuple[tuple[int, Any], ...]]:
    placed = list(enumerate(one))
    yield from itertools.combinations(placed, 2)
    yield from itertools.combinations(placed, 3)


def recipe_for(cell: Cell, folder: Path) -> Recipe:
    """The recipe of a cell, of the model in a folder."""
    overrides = [
        f"tuning={'full' if cell.tuning == 'full' else 'lora'}",
        f"quantization={QUANTIZATION.get(cell.tuning, 'null')}",
        f"data.packing={str(cell.packed).lower()}",
        f"data.max_length={cell.length}",
        f"training.optimizer={cell.optimizer}",
        f"training.precision={cell.precision}",
        f"training.activation_checkpointing={str(cell.checkpointing).lower()}",
        f"training.micro_batch_size={cell.rows}",
        f"training.batch_size={cell.rows}",
        "parallel.processes=1",
    ]
    return recipe_of({"model": str(folder), "data": "ftk://orders/train"}, overrides).recipe


def batch_for(cell: Cell, vocabulary_size: int) -> Batch:
    """Rows of seeded tokens: packed ones full of documents, others of falling length, padded to the longest."""
    draw = np.random.default_rng(0)

    def example(length: int, index: int) -> Example:
        tokens = draw.integers(3, vocabulary_size, length).astype(np.int32)
        return Example(tokens, np.ones(length, np.float32), np.ones(length, np.bool_), index)

    if cell.packed:
        parts = (cell.length // 2, cell.length // 4, cell.length - cell.length // 2 - cell.length // 4)
        rows = [[example(part, 3 * row + number) for number, part in enumerate(parts)] for row in range(cell.rows)]
    else:
        rows = [[example(cell.length - row * cell.length // 8, row)] for row in range(cell.rows)]
    return collate(rows, pad_token_id=0)


def gpu_cells() -> list[Cell]:
    """What fits on 80 GB: 1B in all ways, 8B with adapters."""
    cells = []
    for tuning, checkpointing in itertools.product(("full", "lora", "qlora"), (False, True)):
        cells.append(Cell("llama 1B", tuning, checkpointing, 2048, 1, "adamw", False, "bf16"))
    for tuning in ("lora", "qlora"):
        cells.append(Cell("llama 8B", tuning, True, 2048, 1, "adamw", False, "bf16"))
    return cells


def save_config(shape: dict[str, Any], folder: Path) -> Path:
    """The configuration of a shape without weights."""
    from transformers import AutoConfig

    values = {**SHARED, **shape}
    AutoConfig.for_model(values.pop("model_type"), **values).save_pretrained(folder)
    return folder


def save_model(shape: dict[str, Any], folder: Path) -> Path:
    """A random model of a shape."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if not folder.exists():
        values = {**SHARED, **shape}
        config = AutoConfig.for_model(values.pop("model_type"), **values)
        torch.manual_seed(0)
        dtype = torch.float32 if shape["hidden_size"] < 1024 else torch.bfloat16
        AutoModelForCausalLM.from_config(config, dtype=dtype).save_pretrained(folder)
    return folder
