"""What both sides of `preference_cpu.py` train on: a random model, a recipe, and pairs as tokens in ftk's order."""

import argparse
import json
from pathlib import Path

import torch
import yaml
from sft_cpu_inputs import write_model

from ftk.data.batches import TrainBatches
from ftk.data.comparisons import read_comparisons
from ftk.data.prepare_comparisons import prepare_comparisons
from ftk.data.render import renderer_for
from ftk.data.settings import DataSettings
from ftk.models.load import load_tokenizer
from ftk.models.settings import ModelSettings

BATCH_SIZE, LEARNING_RATE, BETA, SEED = 8, 1e-4, 0.1, 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vocabulary", type=int, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--max-length", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--threads", type=int, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    write_model(arguments.folder / "model", arguments.vocabulary, arguments.max_length)
    write_pairs(arguments)
    recipe = {
        "model": str(arguments.folder / "model"),
        "task": {"name": "preference", "loss": {"name": "dpo", "beta": BETA}},
        # The very pairs of these steps, so that neither side computes a reference that the other does not.
        "data": {"train": str(arguments.folder / "pairs.jsonl"), "max_length": arguments.max_length},
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
    settings = {
        "batch_size": BATCH_SIZE,
        "learning_rate": LEARNING_RATE,
        "beta": BETA,
        "max_length": arguments.max_length,
        "seed": SEED,
        "threads": arguments.threads,
    }
    (arguments.folder / "settings.json").write_text(json.dumps(settings))


def write_pairs(arguments: argparse.Namespace) -> None:
    """Pairs of the first steps: as rows for ftk, and as tokens for TRL in the order in which ftk draws those rows."""
    settings = DataSettings(train=arguments.data, truncation="drop")  # type: ignore[arg-type]
    renderer = renderer_for(load_tokenizer(ModelSettings(id=str(arguments.folder / "model"))), chat_template=None)
    pairs = read_comparisons(settings.train, unpaired=False)
    options = {"settings": settings, "max_length": arguments.max_length, "cache_folder": None}
    every, _ = prepare_comparisons(list(pairs), renderer, **options)
    fitting = [pairs[int(row) - 1] for row in every.rows_N][: arguments.steps * BATCH_SIZE]
    if len(fitting) < arguments.steps * BATCH_SIZE:
        raise SystemExit(f"{arguments.data} has pairs for {len(fitting) // BATCH_SIZE} steps: ask for fewer")
    with (arguments.folder / "pairs.jsonl").open("w") as file:
        for pair in fitting:
            chosen, rejected = ([*pair.prompt, *completion] for completion in pair.completions)
            file.write(json.dumps({"chosen": chosen, "rejected": rejected}) + "\n")
    examples, _ = prepare_comparisons(fitting, renderer, **options)
    batches = TrainBatches(
        examples,
        batch_size=BATCH_SIZE,
        micro_batch_size=BATCH_SIZE,
        max_length=arguments.max_length,
        pad_token_id=0,
        seed=SEED,
    )
    with (arguments.folder / "tokens.jsonl").open("w") as file:
        for _, (batch,) in zip(range(arguments.steps), batches, strict=False):
            for index in batch.indices:
                row = examples[index]
                # TRL learns every token it is given as an answer: what the template puts after the end of turn, which
                # ftk does not learn, is left out. With it, losses differ by up to 8.5e-4 from the second step on.
                learned = [(row.branches_L == branch) & (row.weights_L > 0) for branch in (1, 2)]
                parts = [row.token_ids_L[here].tolist() for here in (row.branches_L == 0, *learned)]
                file.write(
                    json.dumps(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), parts, strict=True))) + "\n"
                )


if __name__ == "__main__":
    main()
