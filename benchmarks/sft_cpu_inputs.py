"""What both sides of `sft_cpu.py` train on: a random model, a recipe, and rows as tokens in ftk's order."""

import argparse
import json

from in_turn import BATCH_SIZE
from in_turn_inputs import data_settings, drawn, model_renderer, read_arguments, write_model, write_settings

from ftk.data.load import read_conversations
from ftk.data.prepare import prepare


def main() -> None:
    arguments = read_arguments(__doc__)
    write_model(arguments.folder / "model", arguments.vocabulary, arguments.max_length)
    write_settings(
        arguments,
        task={"name": "sft", "prompt_loss_weight": 0},
        data={"train": arguments.data, "truncation": "drop"},
        learning_rate=1e-3,
    )
    write_tokens(arguments)


def write_tokens(arguments: argparse.Namespace) -> None:
    """The rows of the first steps as TRL reads tokens, each once, in the order in which ftk draws them."""
    settings = data_settings(arguments)
    examples, _ = prepare(
        read_conversations(settings.train),
        model_renderer(arguments),
        settings=settings,
        max_length=arguments.max_length,
        prompt_loss_weight=0.0,
        train_on="all",
        cache_folder=None,
    )
    # Packing puts several rows into one, so TRL needs more of them for as many steps.
    num_steps = max(arguments.steps, len(examples) // BATCH_SIZE)
    with (arguments.folder / "tokens.jsonl").open("w") as file:
        for row in drawn(examples, max_length=arguments.max_length, num_steps=num_steps):
            mask = [int(weight > 0) for weight in row.weights_L]
            file.write(json.dumps({"input_ids": row.token_ids_L.tolist(), "completion_mask": mask}) + "\n")


if __name__ == "__main__":
    main()
