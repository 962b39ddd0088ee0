"""A small run for the tests of the loop; as a script it is one process of such a run."""

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model_stand_in import StandIn, llama
from rows_stand_in import collate, data_of, length_of, objective_named
from torch import nn

from ftk.core.types import Batch


class Steps:
    """A BatchSource over rows in a seeded order, dealt to processes; idle processes get a row of weight 0."""

    def __init__(
        self,
        data: Sequence[Any],
        *,
        collate: Callable[..., Batch] = collate,
        batch_size: int,
        micro_batch_size: int,
        process_index: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.data, self.collate = data, collate
        self.batch_size, self.micro = batch_size, micro_batch_size
        self.process_index, self.num_processes = process_index, num_processes
        self.done = 0

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.data) // self.batch_size)

    def __iter__(self) -> Iterator[list[Batch]]:
        while True:
            epoch, place = divmod(self.done, self.steps_per_epoch)
            order = np.random.default_rng([7, epoch]).permutation(len(self.data))
            chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
            mine = [int(one) for one in chosen[self.process_index :: self.num_processes]]
            portions = math.ceil(math.ceil(len(chosen) / self.num_processes) / self.micro)
            batches = []
            for portion in range(portions):
                indices = mine[portion * self.micro : (portion + 1) * self.micro]
                batches.append(self.collate([self.data[one] for one in indices], indices))
            self.done += 1
            yield batches

    def state_dict(self) -> dict[str, Any]:
        return {"done": self.done}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.done = int(state["done"])


def signalling(objective: Any, *, signal_at: int | None, number: int = signal.SIGTERM) -> Any:
    """The objective, which sends this process a signal in the middle of a step, where one is wanted."""
    calls, weights = iter(range(1, sys.maxsize)), objective.weights

    def counted(batch: Batch) -> dict[str, float]:
        if next(calls) == signal_at:
            os.kill(os.getpid(), number)
        return weights(batch)

    objective.weights = counted
    return objective


def train(
    folder: Path,
    *,
    objective: str = "sft",
    steps: int = 8,
    num_rows: int = 36,
    batch_size: int = 8,
    micro: int = 3,
    dropout: float = 0.0,
    strategy: str = "ddp",
    optimizer: str = "adamw",
    schedule: str = "cosine",
    evaluate_every: int | None = None,
    save_every: int | None = 3,
    keep: int = 2,
    patience: int | None = None,
    signal_at: int | None = None,
    signal_number: int = signal.SIGTERM,
    double: bool = False,
    seed: int = 0,
    frozen: bool = False,
    tuning: str | None = None,
    width: int = 16,
    settings: Mapping[str, Any] | None = None,
    held_out: Sequence[float] | None = None,
) -> tuple[Any, nn.Module]:
    """A whole run with `fit`; the result and the trained model."""
    from ftk.core.interval import Interval
    from ftk.train.checkpoint import Checkpoints
    from ftk.train.group import join_group
    from ftk.train.loop import fit
    from ftk.train.observe import Observer
    from ftk.train.random_state import seed_everything
    from ftk.train.settings import Training
    from ftk.train.shard import spread, unwrapped, whole

    training = Training(
        learning_rate=3e-2,
        weight_decay=0.01,
        optimizer=optimizer,
        schedule=schedule,
        precision="fp32",
        **(settings or {}),
    )
    accelerator = join_group(training.precision)
    seed_everything(seed)
    model = (llama(tuning) if tuning else StandIn(width=width, dropout=dropout)).to(
        torch.float64 if double else torch.float32
    )
    if frozen:
        model.embed_tokens.requires_grad_(False)
    model = spread(model, accelerator, strategy=strategy)
    seed_everything(seed, process_index=accelerator.process_index)
    built = training.optimizer.build(
        unwrapped(model).named_parameters(), learning_rate=training.learning_rate, weight_decay=0.01
    )
    data, collated = data_of(objective, num_rows)
    held_out_rows, _ = data_of(objective, 12, seed=9)
    batches = Steps(
        data,
        collate=collated,
        batch_size=batch_size,
        micro_batch_size=micro,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
    )
    told = iter(held_out) if held_out is not None else None

    def evaluate() -> dict[str, float]:
        assert not unwrapped(model).training
        if told is not None:
            return {"loss": next(told)}
        batch = collated(held_out_rows, range(12))
        scores = model(batch.to(accelerator.device))
        return {"loss": float(-(scores.logps_BL * batch.weights_BL).sum() / batch.weights_BL.sum())}

    def write_best(path: Path) -> None:
        from safetensors.torch import save_file

        from ftk.core.atomic import atomic_folder

        tensors = {name: whole(one.detach()) for name, one in unwrapped(model).named_parameters()}
        if accelerator.is_main_process:
            with atomic_folder(path) as temporary:
                save_file(tensors, temporary / "weights.safetensors")

    result = fit(
        model=model,
        objective=signalling(
            objective_named(objective),
            signal_at=signal_at,
            number=signal_number,
        ),
        batches=batches,
        optimizer=built,
        schedule=training.schedule,
        total_steps=steps,
        accelerator=accelerator,
        settings=training,
        checkpoints=Checkpoints(
            folder / "checkpoints",
            every=Interval(steps=save_every) if save_every else None,
            keep=keep,
            write_best=write_best,
            resolved={"micro_batch_size": micro},
        ),
        observer=Observer(folder, accelerator=accelerator, log_every=training.log_every, trackers=training.trackers),
        evaluate=evaluate if evaluate_every else None,
        evaluate_every=Interval(steps=evaluate_every) if evaluate_every else None,
        patience=patience,
        worst_batch=collated(sorted(data, key=length_of, reverse=True)[:micro], range(micro)),
        describe_rows=lambda indices: ", ".join(f"rows.jsonl:{index + 1}" for index in indices),
    )
    return result, model


def main() -> None:
    from safetensors.torch import save_file

    from ftk.core.errors import FtkError
    from ftk.train.group import join_group, leave_group
    from ftk.train.shard import gathered, unwrapped, whole

    folder, options = Path(sys.argv[1]), json.loads(sys.argv[2])
    for name in options.pop("objectives", ["sft"]):
        try:
            result, model = train(folder / name, objective=name, **options)
        except FtkError as error:
            print(error, file=sys.stderr)
            sys.exit(int(error.exit_code))
        tensors = {name: whole(one.detach()) for name, one in unwrapped(model).named_parameters()}
        if options.get("tuning"):
            # Parts of the model are called from outside its forward, and not equally often.
            with gathered(model), torch.no_grad():
                for _ in range(1 + int(os.environ.get("RANK", "0"))):
                    tensors["logits"] = unwrapped(model).causal_lm(torch.tensor([[3, 1, 4, 1, 5]])).logits
        if os.environ.get("RANK", "0") == "0":
            save_file(tensors, folder / name / "final.safetensors")
            print(json.dumps({"final_loss": result.final_loss, "tokens": result.tokens}))
    leave_group(join_group("fp32"))


if __name__ == "__main__":
    main()
