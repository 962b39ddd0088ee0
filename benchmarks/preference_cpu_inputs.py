"""What both sides of `preference_cpu.py` train on: a random model, a recipe, and pairs as tokens in ftk's order."""

import argparse
import json

from in_turn import BATCH_SIZE
from in_turn_inputs import data_settings, drawn, model_renderer, read_arguments, write_model, write_settings

from ftk.data.comparisons import read_comparisons
from ftk.data.prepare_comparisons import prepare_comparisons

BETA = 0.1


def main() -> None:
    arguments = read_arguments(__doc__)
    write_model(arguments.folder / "model", arguments.vocabulary, arguments.max_length)
    write_pairs(arguments)
    write_settings(
        arguments,
        task={"name": "preference", "loss": {"name": "dpo", "beta": BETA}},
        # The very pairs of these steps, so that neither side computes a reference that the other does not.
        data={"train": str(arguments.folder / "pairs.jsonl")},
        learning_rate=1e-4,
        beta=BETA,
    )


def write_pairs(arguments: argparse.Namespace) -> None:
    """Pairs of the first steps: as rows for ftk, and as tokens for TRL in the order in which ftk draws those rows."""
    settings, renderer = data_settings(arguments), model_renderer(arguments)
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
    with (arguments.folder / "tokens.jsonl").open("w") as file:
        for row in drawn(examples, max_length=arguments.max_length, num_steps=arguments.steps):
            # TRL learns every token it is given as an answer: what the template puts after the end of turn, which
            # ftk does not learn, is left out. With it, losses differ by up to 8.5e-4 from the second step on.
            learned = [(row.branches_L == branch) & (row.weights_L > 0) for branch in (1, 2)]
            parts = [row.token_ids_L[here].tolist() for here in (row.branches_L == 0, *learned)]
            file.write(json.dumps(dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), parts, strict=True))) + "\n")


if __name__ == "__main__":
    main()
