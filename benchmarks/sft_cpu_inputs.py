"""What both sides of `sft_cpu.py` train on: a random model, a recipe, and rows as tokens in ftk's order."""

import argparse
import json
from pathlib import Path

import torch
import yaml
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.data.batches import TrainBatches
from ftk.data.load import read_conversations
from ftk.data.prepare import prepare
from ftk.data.render import renderer_for
from ftk.data.settings import DataSettings
from ftk.models.load import load_tokenizer
from ftk.models.settings import ModelSettings

BATCH_SIZE, LEARNING_RATE, SEED = 8, 1e-3, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vocabulary", type=int, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    write_model(arguments.folder / "model", arguments.vocabulary, arguments.max_length)
    recipe = {
        "model": str(arguments.folder / "model"),
        "task": {"name": "sft", "prompt_loss_weight": 0},
        "data": {"train": arguments.data, "max_length": arguments.max_length, "truncation": "drop"},
        "tuning": "full",
        "training": {
            "max_steps": arguments.steps,
            "batch_size": BATCH_SIZE,
            "learning_rate": LEARNING_RATE,
            "schedule": "constant",
            "precision": "fp32",
        },
        "evaluation": {"before": False},
        "checkpoint": {"every": None},
        "output": str(arguments.folder / "run"),
        "seed": SEED,
    }
    (arguments.folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    write_tokens(arguments)
    settings = {
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "max_length": arguments.max_length,
        "seed": SEED,
        "threads": arguments.threads,
    }
    (arguments.folder / "settings.json").write_text(json.dumps(settings))


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


def write_tokens(arguments: argparse.Namespace) -> None:
    """The rows of the first steps as TRL reads tokens, each once, in the order in which ftk draws them."""
    settings = DataSettings(train=arguments.data, truncation="drop")  # type: ignore[arg-type]
    renderer = renderer_for(load_tokenizer(ModelSettings(id=str(arguments.folder / "model"))), chat_template=None)
    examples, _ = prepare(
        read_conversations(settings.train),
        renderer,
        settings=settings,
        max_length=arguments.max_length,
        prompt_loss_weight=0.0,
        train_on="all",
        cache_folder=None,
    )
    batches = TrainBatches(
        examples,
        batch_size=BATCH_SIZE,
        micro_batch_size=BATCH_SIZE,
        max_length=arguments.max_length,
        pad_token_id=0,
        seed=SEED,
    )
    # Packing puts several rows into one, so TRL needs more of them for as many steps.
    num_steps = max(arguments.steps, len(examples) // BATCH_SIZE)
    with (arguments.folder / "tokens.jsonl").open("w") as file:
        for _, (batch,) in zip(range(num_steps), batches, strict=False):
            for index in batch.indices:
                row = examples[index]
                mask = [int(weight > 0) for weight in row.weights_L]
                file.write(json.dumps({"input_ids": row.token_ids_L.tolist(), "completion_mask": mask}) + "\n")


if __name__ == "__main__":
    main()
