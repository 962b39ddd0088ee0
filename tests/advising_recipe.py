"""A recipe of which much can be changed, and what is estimated of it."""

import json
from dataclasses import replace
from pathlib import Path

from ftk.recipe.load import load_recipe
from ftk.runs.advising.changes import ladders
from ftk.runs.estimate import Question, estimate, question


def write_recipe(folder: Path) -> Path:
    """A Llama of 8B but for its depth as a bare configuration, and a recipe with much that can be changed."""
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    path = folder / "recipe.yaml"
    path.write_text(
        f"""\
model: {folder}
data: {{train: ftk://orders/train, max_length: 2048}}
tuning: {{name: lora, rank: 32, alpha: 64, dropout: 0.05}}
training: {{micro_batch_size: 8, precision: bf16, optimizer: {{name: adamw, betas: [0.9, 0.95]}}}}
"""
    )
    return path


def asked(path: Path, *overrides: str) -> Question:
    return question(load_recipe(str(path), overrides).recipe)


def total(path: Path, *overrides: str) -> int:
    return estimate(asked(path, *overrides)).per_device.bytes.total


def factor(path: Path, wanted: str, *overrides: str) -> float:
    """Slow-down of the change whose first override is `wanted`."""
    before = asked(path, *overrides)
    steps = [step for ladder in ladders(before.recipe, on_gpu=True).values() for step in ladder if step]
    change = next(step for step in steps if step.overrides[0] == wanted)
    after = replace(question(change.apply(before.recipe), numbers=before.numbers))
    return change.slowdown(before, after)
