"""A small model, data and run for the tests of the loop; as a script it is one process of such a run.

Shapes: B rows, L positions.
"""

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
from preference_objectives import LOSSES, VOCABULARY, batch_of, examples, objective_of
from torch import Tensor, nn
from torch.nn import functional as F

from ftk.core.types import NUM_BYTES, Batch, Example, Terms, TokenScores
from ftk.data.pieces import Cutter
from ftk.objectives.cpt import CptObjective
from ftk.objectives.sft import SftObjective

OBJECTIVES = ("sft", "cpt", *LOSSES)


class Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, visible_BLL: Tensor) -> Tensor:
        normed = self.norm(hidden)
        shares_BLL = visible_BLL.to(hidden.dtype) / visible_BLL.sum(-1, keepdim=True)
        past = shares_BLL @ normed
        return hidden + self.dropout(F.gelu(self.linear(torch.cat([normed, past], -1))))


class StandIn(nn.Module):
    """What the loop sees of a ScoringModel: a batch in, log-probabilities of targets at their own places out."""

    def __init__(self, *, width: int = 16, num_layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Block(width, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, batch: Batch) -> TokenScores:
        visible_BLL = visible(batch)
        hidden = self.embed_tokens(batch.input_ids_BL)
        for layer in self.layers:
            hidden = layer(hidden, visible_BLL)
        # A token is predicted at the latest place that it sees; the first one of a document by itself, without weight.
        places_L = torch.arange(hidden.shape[1], device=hidden.device)
        before_BLL = visible_BLL & (places_L < places_L[:, None])
        predictors_BL = torch.where(before_BLL, places_L, 0).amax(-1)
        hidden = hidden.gather(1, predictors_BL[..., None].expand_as(hidden))
        logits = self.head(self.norm(hidden))
        targets_BL = batch.input_ids_BL
        logps = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
        logps_BL = logps.gather(-1, targets_BL[..., None])[..., 0]
        taught_BL = batch.weights_BL > 0
        correct_BL = (logits.argmax(-1) == targets_BL) & taught_BL
        # A row of weight 0 must still touch every parameter, hence the product and no selection.
        return TokenScores(torch.where(taught_BL, logps_BL, logps_BL * 0.0), correct_BL)


def visible(batch: Batch) -> Tensor:
    """bool [B, L, L]: what the token at a place sees: itself and before, its document's trunk and its own branch."""
    documents_BL = batch.document_ids_BL
    seen_BLL = (documents_BL[:, :, None] == documents_BL[:, None]).tril()
    if batch.branches_BL is not None:
        branches_BL = batch.branches_BL
        seen_BLL &= (branches_BL[:, None] == 0) | (branches_BL[:, :, None] == branches_BL[:, None])
    return seen_BLL


class Baselined:
    """An objective that needs sums over the whole step: likelihood times its distance from the step's mean."""

    def weights(self, batch: Batch) -> dict[str, float]:
        return {"nll": float((batch.weights_BL > 0).sum())}

    def statistics_batches(self, batch: Batch) -> Sequence[Batch]:
        return (batch,)

    def statistics(self, scores: TokenScores, batch: Batch) -> dict[str, Tensor]:
        return {"sum": scores.logps_BL.sum().detach(), "count": (batch.weights_BL > 0).sum().to(scores.logps_BL)}

    def terms(self, scores: TokenScores, batch: Batch, statistics: Mapping[str, Tensor]) -> Terms:
        mean = statistics["sum"] / statistics["count"]
        return Terms({"nll": ((scores.logps_BL - mean) ** 2 * (batch.weights_BL > 0)).sum()}, {})

    def figures(self, observed: Mapping[str, float]) -> dict[str, float]:
        return {}


def llama(tuning: str) -> nn.Module:
    """The model of a real run: a small Llama with a tied head, trained in full or by LoRA."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from ftk.models.scoring import ScoringModel
    from ftk.tuning.lora import Lora

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    return ScoringModel(Lora(rank=4).apply(model) if tuning == "lora" else model)


def rows(count: int, *, seed: int = 0, low: int = 3, high: int = 14) -> list[tuple[list[int], list[float]]]:
    """Rows of unequal lengths with ragged masks."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        length = int(rng.integers(low, high))
        ids = [int(one) for one in rng.integers(1, VOCABULARY, length)]
        start = int(rng.integers(1, length))
        made.append((ids, [0.0] + [0.1] * (start - 1) + [1.0] * (length - start)))
    return made


def collate(chosen: Sequence[tuple[list[int], list[float]]], indices: Sequence[int]) -> Batch:
    length = max((len(ids) for ids, _ in chosen), default=2)
    size = max(1, len(chosen))
    ids_BL, documents_BL = torch.zeros(size, length, dtype=torch.long), torch.zeros(size, length, dtype=torch.long)
    weights_BL = torch.zeros(size, length)
    for row, (ids, weights) in enumerate(chosen):
        ids_BL[row, : len(ids)] = torch.tensor(ids)
        documents_BL[row, : len(ids)] = 1
        weights_BL[row, : len(ids)] = torch.tensor(weights)
    return Batch(
        input_ids_BL=ids_BL,
        position_ids_BL=torch.arange(length).expand(size, -1),
        document_ids_BL=documents_BL,
        weights_BL=weights_BL,
        answers_BL=weights_BL == 1,
        packed=False,
        num_tokens=sum(len(ids) for ids, _ in chosen),
        num_examples=len(chosen),
        indices=tuple(indices),
    )


def split(chosen: Sequence[Any], micro_batch_size: int, collated: Callable[..., Batch] = collate) -> list[Batch]:
    starts = range(0, len(chosen), micro_batch_size)
    return [
        collated(chosen[start : start + micro_batch_size], range(start, min(len(chosen), start + micro_batch_size)))
        for start in starts
    ]


def pieces(count: int, *, seed: int = 0) -> list[Example]:
    """Documents of unequal length, cut into pieces that overlap by two tokens."""
    rng = np.random.default_rng(seed)
    cutter = Cutter(bos=1, eos=2, max_length=9, overlap=2)
    made: list[Example] = []
    while len(made) < count:
        length = int(rng.integers(1, 20))
        found = [*cutter.push(rng.integers(3, VOCABULARY, length).astype(np.int32), rng.integers(1, 5, length))]
        for piece in [*found, *cutter.end()]:
            learned_L = np.arange(len(piece.token_ids_L)) >= piece.num_context
            columns = {NUM_BYTES: np.asarray(piece.num_bytes, np.float32)}
            made.append(Example(piece.token_ids_L, learned_L.astype(np.float32), learned_L, len(made), columns=columns))
    return made[:count]


def objective_named(name: str) -> Any:
    """The objective of one of `OBJECTIVES`."""
    return {"sft": SftObjective, "cpt": CptObjective}[name]() if name in ("sft", "cpt") else objective_of(name)


def data_of(objective: str, count: int, *, seed: int = 0) -> tuple[Sequence[Any], Callable[..., Batch]]:
    """Rows for an objective, and what makes a batch of some of them and their indices."""
    if objective == "sft":
        return rows(count, seed=seed), collate
    if objective == "cpt":
        made = pieces(count, seed=seed)
    else:
        made = examples(count, unpaired=objective_of(objective).loss.rows == "unpaired", seed=seed)
    return made, lambda chosen, indices: batch_of([[one] for one in chosen], spare=made[0])


def length_of(row: Any) -> int:
    return len(row[0] if isinstance(row, tuple) else row.token_ids_L)


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
