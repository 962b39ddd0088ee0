"""What the inputs of benchmarks in turn have in common: a random model, a recipe, rows in ftk's order."""

import argparse
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from in_turn import BATCH_SIZE
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.core.types import Example, Examples
from ftk.data.batches import TrainBatches
from ftk.data.render import Renderer, renderer_for
from ftk.data.settings import DataSettings
from ftk.models.load import load_tokenizer
from ftk.models.settings import ModelSettings

SEED = 0


def read_arguments(description: str | None) -> argparse.Namespace:
    """The folder to write into, and the options of the benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vocabulary", type=int, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    return arguments


def write_model(folder: Path, vocabulary: int, positions: int) -> None:
    """A Llama of 12.6 million parameters at a vocabulary of 8,192, with the tokenizer of ftk://tiny."""
    torch.manual_seed(SEED)
    config = LlamaConfig(
        hidden_size=384,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=vocabulary,
        max_position_embeddings=max(1024, positions),
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    load_tokenizer(ModelSettings(id="ftk://tiny")).save_pretrained(folder)


def write_settings(
    arguments: argparse.Namespace, *, task: dict[str, Any], data: dict[str, Any], learning_rate: float, **peer: float
) -> None:
    """The recipe for ftk, and the same settings for the peer, which has those of `peer` besides."""
    recipe = {
        "model": str(arguments.folder / "model"),
        "task": task,
        "data": {"max_length": arguments.max_length, **data},
        "tuning": "full",
        "training": {
            "max_steps": arguments.steps,
            "batch_size": BATCH_SIZE,
            "learning_rate": learning_rate,
            "schedule": "constant",
            "precision": "fp32",
        },
        "evaluation": {"before": False},
        "checkpoint": {"every": None},
        "output": str(arguments.folder / "run"),
        "seed": SEED,
    }
    (arguments.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    settings = {
        "batch_size": BATCH_SIZE,
        "learning_rate": learning_rate,
        "max_length": arguments.max_length,
        "seed": SEED,
        "threads": arguments.threads,
        **peer,
    }
    (arguments.folder / "settings.json").write_text(json.dumps(settings))


def data_settings(arguments: argparse.Namespace) -> DataSettings:
    """The rows that both train on; those that are too long are dropped."""
    return DataSettings.model_validate({"train": arguments.data, "truncation": "drop"})


def model_renderer(arguments: argparse.Namespace) -> Renderer:
    """Of the model in the folder."""
    return renderer_for(load_tokenizer(ModelSettings(id=str(arguments.folder / "model"))), chat_template=None)


def drawn(examples: Examples, *, max_length: int, num_steps: int) -> Iterator[Example]:
    """The examples of the first `num_steps` steps in the order in which ftk draws them."""
    batches = TrainBatches(
        examples,
        batch_size=BATCH_SIZE,
        micro_batch_size=BATCH_SIZE,
        max_length=max_length,
        pad_token_id=0,
        seed=SEED,
    )
    for (batch,) in islice(batches, num_steps):
        for index in batch.indices:
            yield examples[index]
