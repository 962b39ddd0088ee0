"""What `ftk estimate-memory` says against what a training step takes. Writes memory.md.

    python benchmarks/memory.py                    66 cells on the CPU
    python benchmarks/memory.py --only 0,7,12      some of them
    python benchmarks/memory.py --device cuda      shapes of 1B and 8B parameters on a GPU

Finished cells are kept in --lines and not repeated; the table is written once all of them are there.

A cell is one shape of model under one choice of tuning, checkpointing, length, rows, optimizer and packing. Sixty are a
seeded choice from the product of all choices, in which every pair of choices occurs; they compute in float32. Six more
compute in bfloat16, on few tokens, as a CPU without instructions for it is slow. Models are small and random, with the
proportions of the real ones.

Measured is the second step of the real parts of `ftk train`. On the CPU it is the peak of what the allocator has given
out, from the profiler's memory events; weights, which were there before the profiler, are counted by their sizes. On
CUDA it is `torch.cuda.max_memory_allocated`, with `max_memory_reserved` beside it.
"""

import argparse
import gc
import itertools
import json
import logging
import os
import platform
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from ftk.core.types import Batch, Example
from ftk.data.collate import collate
from ftk.memory.analytic import CONTEXT_BYTES, WORKSPACE_BYTES, training_peak
from ftk.memory.estimate import MemoryBytes
from ftk.memory.quantized import quantized_constants
from ftk.recipe.load import recipe_of
from ftk.recipe.schema import Recipe
from ftk.runs.estimate import question
from ftk.runs.simulate_step import simulate_step
from ftk.runs.tuned_model import load_start, tune
from ftk.train.group import join_group
from ftk.train.shard import spread, unwrapped
from ftk.train.step import Step

OUTPUT = Path(__file__).with_suffix(".md")
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


@dataclass(frozen=True)
class Result:
    """Bytes of one cell, as measured and as said."""

    cell: Cell
    measured: int
    analytic: MemoryBytes
    simulated: MemoryBytes
    moment: str
    seconds: tuple[float, float]
    """Of the measurement and of the simulation."""
    reserved: int | None = None

    @property
    def errors(self) -> tuple[float, float]:
        """Of the analytic and of the simulated answer; below 0 where it says too little."""
        return (
            self.analytic.total / self.measured - 1,
            self.simulated.total / self.measured - 1,
        )


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
    return cells + [Cell(*one, "bf16") for one in IN_BF16]


def _parts(one: tuple[Any, ...]) -> Iterator[tuple[tuple[int, Any], ...]]:
    placed = list(enumerate(one))
    yield from itertools.combinations(placed, 2)
    yield from itertools.combinations(placed, 3)


def recipe_for(cell: Cell, folder: Path) -> Recipe:
    """The recipe of a cell, of the model in a folder."""
    overrides = [
        f"tuning={'full' if cell.tuning == 'full' else 'lora'}",
        f"quantization={'nf4' if cell.tuning == 'qlora' else 'null'}",
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


def run(cell: Cell, folder: Path, *, device: str) -> Result:
    """Measure a cell, and ask what is said of it."""
    from transformers import AutoConfig

    recipe = recipe_for(cell, folder)
    config = AutoConfig.from_pretrained(folder)
    batch = batch_for(cell, config.vocab_size)
    started = time.monotonic()
    measured, reserved = (measure_cuda if device == "cuda" else measure_cpu)(recipe, batch)
    between = time.monotonic()
    device_bytes = torch.cuda.get_device_properties(0).total_memory if device == "cuda" else None
    simulated = simulate_step(
        recipe,
        config,
        [batch],
        precision=cell.precision,  # type: ignore[arg-type]
        device=device,  # type: ignore[arg-type]
        device_bytes=device_bytes,
    )
    seconds = (between - started, time.monotonic() - between)
    analytic = analytic_bytes(recipe, batch, device=device, device_bytes=device_bytes)
    said = replace(simulated.bytes, overhead=simulated.bytes.overhead + (WORKSPACE_BYTES if device == "cuda" else 0))
    return Result(cell, measured, analytic, said, simulated.moment, seconds, reserved)


def analytic_bytes(recipe: Recipe, batch: Batch, *, device: str, device_bytes: int | None) -> MemoryBytes:
    """The analytic answer for the very tokens of a batch."""
    asked = question(recipe, device=device, device_bytes=device_bytes)  # type: ignore[arg-type]
    setup = replace(asked.setup, scored=int((batch.weights_BL > 0).sum()), length=batch.input_ids_BL.shape[1])
    said = training_peak(asked.numbers.architecture, asked.numbers.weights, setup).bytes
    # torch counts tensors and workspaces; what CUDA itself holds of a process is not among them.
    return replace(said, overhead=said.overhead - CONTEXT_BYTES) if device == "cuda" else said


def asked_anew(result: Result, folder: Path, *, device: str) -> Result:
    """A finished cell with the analytic answer of today, which costs nothing."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder)
    batch = batch_for(result.cell, config.vocab_size)
    recipe = recipe_for(result.cell, folder)
    return replace(result, analytic=analytic_bytes(recipe, batch, device=device, device_bytes=None))


def build_step(recipe: Recipe) -> tuple[Step, nn.Module]:
    """What `ftk train` makes of a recipe, up to the step."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    accelerator = join_group(recipe.training.precision)
    tuned = tune(load_start(recipe, accelerator), recipe, accelerator)
    model = spread(tuned.scoring, accelerator, strategy="ddp").train()
    optimizer = recipe.training.optimizer.build(
        unwrapped(model).named_parameters(), learning_rate=recipe.training.learning_rate, weight_decay=0.0
    )
    objective = recipe.task.objective(router_loss_weight=tuned.router_loss_weight)
    step = Step(model=model, objective=objective, optimizer=optimizer, accelerator=accelerator, max_grad_norm=1.0)
    return step, model


def measure_cpu(recipe: Recipe, batch: Batch) -> tuple[int, None]:
    """Peak bytes of the second step, from the allocator's own events."""
    step, model = build_step(recipe)
    before = _bytes_of([*model.parameters(), *model.buffers(), *quantized_constants(model), *_tensors(batch)])
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step([batch], learning_rate=1e-4)
        with record_function("second step"):
            step([batch], learning_rate=1e-4)
    events = list(profiler.profiler.kineto_results.events())  # type: ignore[union-attr]
    start = next(event.start_ns() for event in events if event.name() == "second step")
    held = peak = 0
    for event in sorted((one for one in events if one.name() == "[memory]"), key=lambda one: one.start_ns()):
        held += event.nbytes()
        if event.start_ns() >= start:
            peak = max(peak, held)
    return before + peak, None


def measure_cuda(recipe: Recipe, batch: Batch) -> tuple[int, int]:
    """Peak bytes that torch had allocated, and that it had reserved, in the second step."""
    step, _ = build_step(recipe)
    step([batch], learning_rate=1e-4)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    step([batch], learning_rate=1e-4)
    measured = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    del step, _
    gc.collect()
    torch.cuda.empty_cache()
    return measured


def _bytes_of(tensors: Sequence[Tensor]) -> int:
    """Each memory once. Weights on a CPU may be parts of one mapped file: their own sizes count."""
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())


def _tensors(batch: Batch) -> list[Tensor]:
    values = (getattr(batch, field.name) for field in fields(batch))
    return [value for value in values if isinstance(value, Tensor)]


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


def as_json(number: int, result: Result) -> str:
    values = asdict(result)
    return json.dumps({"number": number, **values}) + "\n"


def from_json(text: str) -> tuple[int, Result]:
    values = json.loads(text)
    number = values.pop("number")
    for name, kind in (("cell", Cell), ("analytic", MemoryBytes), ("simulated", MemoryBytes)):
        values[name] = kind(**values[name])
    return number, Result(**values)


def line(number: int, result: Result) -> str:
    """A row of the table."""
    analytic, simulated = result.errors
    reserved = f" {result.reserved / 2**20:.1f} |" if result.reserved is not None else ""
    return (
        f"| {number} | {result.cell.name} | {result.measured / 2**20:.1f} |{reserved} "
        f"{result.analytic.total / 2**20:.1f} | {analytic:+.1%} | {result.simulated.total / 2**20:.1f} | "
        f"{simulated:+.2%} |"
    )


def summary(results: Sequence[Result]) -> list[str]:
    """Mean and worst errors, with the cells that are worst."""
    told = []
    for place, name in enumerate(("analytic", "simulated")):
        errors = [result.errors[place] for result in results]
        worst = max(range(len(errors)), key=lambda one: abs(errors[one]))
        least = min(range(len(errors)), key=lambda one: errors[one])
        told.append(
            f"- {name}: {statistics.fmean(map(abs, errors)):.2%} mean absolute error; worst {errors[worst]:+.2%} "
            f"({results[worst].cell.name}); most underestimated {errors[least]:+.2%} ({results[least].cell.name})"
        )
    return told


def document(done: dict[int, Result]) -> str:
    """memory.md: how it was measured, the summary, and all cells."""
    results = list(done.values())
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "bitsandbytes"))
    cores = os.cpu_count()
    return "\n".join(
        [
            "# What `ftk estimate-memory` says, and what a step takes",
            "",
            f"{len(results)} cells on a CPU ({cores} cores, {platform.machine()}, one thread), Python "
            f"{platform.python_version()}, {versions}. Written by `python benchmarks/memory.py`, which says how cells "
            "are chosen and how peaks are measured. Sizes are in MiB; an error below 0 says too little.",
            "",
            *summary(results),
            "",
            "Not measured on a GPU: `--device cuda` does it at shapes of 1B and 8B parameters, and no GPU was at hand.",
            "",
            "| cell | what | measured | analytic | error | simulated | error |",
            "| ---: | --- | ---: | ---: | ---: | ---: | ---: |",
            *(line(number, result) for number, result in sorted(done.items())),
            "",
        ]
    )


def gpu_cells() -> list[Cell]:
    """What fits on 80 GB: 1B in all ways, 8B with adapters."""
    cells = []
    for tuning, checkpointing in itertools.product(("full", "lora", "qlora"), (False, True)):
        cells.append(Cell("llama 1B", tuning, checkpointing, 2048, 1, "adamw", False, "bf16"))
    for tuning in ("lora", "qlora"):
        cells.append(Cell("llama 8B", tuning, True, 2048, 1, "adamw", False, "bf16"))
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only", help="numbers of cells, such as 0,7")
    parser.add_argument("--lines", default="runs/memory.jsonl", help="where finished cells are kept")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    cells = choose_cells() if arguments.device == "cpu" else gpu_cells()
    shapes = SHAPES if arguments.device == "cpu" else GPU_SHAPES
    numbers = [int(one) for one in arguments.only.split(",")] if arguments.only else list(range(len(cells)))
    lines = Path(arguments.lines)
    lines.parent.mkdir(parents=True, exist_ok=True)
    lines.touch()
    done = dict(map(from_json, lines.read_text().splitlines()))
    with tempfile.TemporaryDirectory() as temporary:
        for number in numbers:
            if number in done:
                continue
            cell = cells[number]
            folder = save_model(shapes[cell.shape], Path(temporary) / cell.shape.replace(" ", "_"))
            done[number] = run(cell, folder, device=arguments.device)
            with lines.open("a") as stream:
                stream.write(as_json(number, done[number]))
            print(line(number, done[number]), flush=True)
        if arguments.device == "cpu":
            for number, result in done.items():
                folder = save_config(shapes[result.cell.shape], Path(temporary) / "configs" / result.cell.shape)
                done[number] = asked_anew(result, folder, device=arguments.device)
    print(*summary(list(done.values())), sep="\n")
    if arguments.device == "cpu" and len(done) == len(cells):
        OUTPUT.write_text(document(done))


if __name__ == "__main__":
    main()
