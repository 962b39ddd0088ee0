"""`ftk estimate-memory`: what a recipe will take, from configuration alone."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from ftk.core.errors import RecipeError
from ftk.memory.analytic import overhead_bytes, training_peak
from ftk.memory.estimate import Estimate, Inference, PerDevice
from ftk.memory.flops import Work, flops_per_token
from ftk.memory.gpus import Gpu, fitting
from ftk.memory.kv_cache import kv_cache_bytes
from ftk.memory.rollout import Asked, decoding_bytes, rollout_bytes
from ftk.memory.rule_of_thumb import rule_of_thumb
from ftk.memory.setup import Adapter, Attention, Setup, Stored, Strategy
from ftk.memory.stored import adapter_weights, weights_bytes
from ftk.quantization.int8 import Int8
from ftk.quantization.nf4 import Nf4
from ftk.recipe.schema import Recipe
from ftk.runs.host_notes import notes_on_the_machine
from ftk.runs.model_numbers import ModelNumbers, model_numbers
from ftk.runs.seen_rows import micro_batch_rows, seen_rows, text_length
from ftk.train.optimizers import Sgd
from ftk.tuning.lora import ALL_LINEAR, Lora

Device = Literal["cuda", "cpu"]


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast and for how much money; what time and price are told for."""

    gpu: Gpu | None = None
    """None takes the smallest GPU that holds the run."""
    utilisation: float = 0.4
    """Part of the GPU's peak that training reaches; PaLM came to 0.46 (Chowdhery et al. 2022, arXiv:2204.02311)."""
    dollars_per_hour: float | None = None
    """Of one device; None tells no price."""
    tokens: int = 1_000_000
    """Tokens trained on."""


@dataclass(frozen=True, slots=True)
class Question:
    """A recipe, on what it shall run."""

    recipe: Recipe
    numbers: ModelNumbers
    setup: Setup
    pace: Pace = Pace()
    rollout: Asked | None = None
    """Answers that training draws between its steps."""


def question(
    recipe: Recipe,
    *,
    device: Device = "cuda",
    device_bytes: int | None = None,
    strategy: Strategy | None = None,
    pace: Pace | None = None,
    rollout: tuple[int, int | None] | None = None,
    numbers: ModelNumbers | None = None,
) -> Question:
    """The plain numbers of the step that a recipe makes.

    Args:
        recipe: what would be trained.
        device: on what kind of device.
        device_bytes: its memory, on which the size of the loss's chunks depends; None where it is not known.
        strategy: another way to spread the model than the recipe's, ZeRO's stages among them.
        pace: what time and price are told for.
        rollout: answers that training draws together, and tokens of each with its prompt; None for those of a row.
        numbers: of the recipe's model, where they are known already.

    Raises:
        ModelError: the model's configuration cannot be had or used.
        RecipeError: rows longer than the model's positions, a strategy that needs more processes, or an adapter on
            modules that the model does not have.
    """
    numbers = numbers or model_numbers(recipe.model)
    training = recipe.training
    precision = training.precision if training.precision != "auto" else ("bf16" if device == "cuda" else "fp32")
    compute = 4 if precision == "fp32" else 2
    processes = 1 if recipe.parallel.processes == "auto" else recipe.parallel.processes
    rows, attention = micro_batch_rows(recipe), _attention(recipe, numbers, device)
    seen = seen_rows(recipe, numbers, takes_masks=attention != "flash")
    setup = Setup(
        rows=seen.rows,
        length=seen.length,
        scored=seen.scored,
        packed=seen.packed,
        device=device,
        device_bytes=device_bytes,
        compute_bytes=compute,
        frozen_bytes=_frozen_bytes(recipe, compute),
        adapter=_adapter(recipe, numbers),
        stored=_stored(recipe),
        state_bytes=training.optimizer.state_bytes,
        update_bytes=partial(training.optimizer.update_bytes, device=device),
        decay_copies=_decay_copies(recipe, device),
        checkpointing=training.activation_checkpointing,
        loss_chunk=None if training.loss_chunk == "auto" else training.loss_chunk,
        accumulates=training.batch_tokens is not None or training.batch_size > rows * processes,
        attention=attention,
        processes=processes,
        strategy=_strategy(strategy or recipe.parallel.strategy, recipe),
    )
    drawn = Asked(rollout[0], text_length(recipe, numbers, asked=rollout[1])) if rollout is not None else None
    return Question(recipe, numbers, setup, pace or Pace(), drawn)


def estimate(asked: Question) -> Estimate:
    """The analytic answer."""
    numbers, setup = asked.numbers, asked.setup
    weights, architecture = numbers.weights, numbers.architecture
    added = adapter_weights(weights, setup.adapter) if setup.adapter else 0
    alone = training_peak(architecture, weights, replace(setup, processes=1, strategy="ddp"))
    each = alone if setup.processes == 1 else training_peak(architecture, weights, setup)
    return Estimate(
        parameters=weights.total + added,
        trainable_parameters=added if setup.adapter else weights.total,
        active_parameters=weights.active + added,
        inference=_inference(asked),
        training=alone.bytes,
        per_device=PerDevice(setup.processes, setup.strategy, each.bytes, each.host),
        rule_of_thumb=_rule_of_thumb(asked, added),
        method="analytic",
        peak_moment=each.moment,
        activations={"residual" if kind == "activations" else kind: size for kind, size in each.activations.items()},
        work=_work(asked, each.bytes.total),
        gpus=_gpus(asked, each.bytes.total),
        rollout=rollout_bytes(architecture, weights, setup, asked.rollout, overhead=overhead_bytes(setup))
        if asked.rollout is not None
        else None,
        notes=(*_notes(asked), *_notes_on_time(asked, each.bytes.total)),
    )


def _inference(asked: Question) -> Inference:
    setup, architecture = asked.setup, asked.numbers.architecture
    added = adapter_weights(asked.numbers.weights, setup.adapter) if setup.adapter and setup.stored else 0
    width = setup.compute_bytes
    weights = weights_bytes(asked.numbers.weights, number_bytes=width, stored=setup.stored) + 4 * added
    cache = kv_cache_bytes(architecture, rows=1, length=setup.length, number_bytes=width)
    return Inference(weights, cache, weights + cache + decoding_bytes(architecture, rows=1, number_bytes=width))


def _work(asked: Question, total: int) -> dict[str, Any]:
    setup, pace = asked.setup, asked.pace
    per_token = flops_per_token(
        asked.numbers.weights,
        asked.numbers.architecture,
        length=setup.length,
        trains_all=setup.adapter is None,
        checkpointing=setup.checkpointing,
    )
    work = Work(per_token, pace.tokens)
    found: dict[str, Any] = {"is_estimate": True, "flops_per_token": per_token, "tokens": pace.tokens}
    found["flops"] = work.total
    fits = fitting(total)
    gpu = pace.gpu or (fits[0] if fits else None)
    if gpu is None or setup.device == "cpu":
        return found
    seconds = work.seconds(tflops=gpu.tflops, utilisation=pace.utilisation, devices=setup.processes)
    found |= {"gpu": gpu.name, "tflops": gpu.tflops, "utilisation": pace.utilisation, "train_seconds": seconds}
    if pace.dollars_per_hour is not None:
        rate = pace.dollars_per_hour
        found |= {"dollars_per_hour": rate, "dollars": rate * setup.processes * seconds / 3600}
    return found


def _gpus(asked: Question, total: int) -> tuple[dict[str, Any], ...]:
    if asked.setup.device == "cpu":
        return ()
    return tuple(
        {"name": gpu.name, "memory_bytes": gpu.memory_bytes, "room_bytes": gpu.memory_bytes - total}
        for gpu in fitting(total)
    )


def _rule_of_thumb(asked: Question, added: int) -> dict[str, Any]:
    setup, weights = asked.setup, asked.numbers.weights
    optimizer = asked.recipe.training.optimizer
    states = (1 if optimizer.momentum else 0) if isinstance(optimizer, Sgd) else 2
    bits = setup.stored.bits if setup.stored else 8 * setup.compute_bytes
    trained = added if setup.adapter else weights.total
    return rule_of_thumb(weights.total, trained, weight_bytes=bits / 8, states=states)


def _frozen_bytes(recipe: Recipe, compute: int) -> int:
    if recipe.tuning.name == "full":
        return 4
    return {"auto": compute, "float32": 4, "bfloat16": 2, "float16": 2}[recipe.model.dtype]


def _adapter(recipe: Recipe, numbers: ModelNumbers) -> Adapter | None:
    tuning = recipe.tuning
    if not isinstance(tuning, Lora):
        return None
    if tuning.target_modules != ALL_LINEAR:
        head = numbers.weights.head
        tuning.named_among([one.name for one in (*numbers.weights.linears, *([head] if head else []))])
    named = (tuning.target_modules,) if isinstance(tuning.target_modules, str) else tuning.target_modules
    targets = None if tuning.target_modules == ALL_LINEAR else frozenset(named)
    beside = frozenset(str(one) for one in tuning.also)
    return Adapter(tuning.rank, targets, dropout=tuning.dropout > 0, decomposed=tuning.dora, beside=beside)


def _stored(recipe: Recipe) -> Stored | None:
    match recipe.quantization:
        case None:
            return None
        case Nf4() as nf4:
            return Stored(nf4.name, nf4.weight_bits, nf4.block, nf4.double)
        case Int8() as int8:
            return Stored(int8.name, int8.weight_bits, int8.block)


def _decay_copies(recipe: Recipe, device: Device) -> Literal["none", "each", "all"]:
    optimizer, decays = recipe.training.optimizer, recipe.training.weight_decay > 0
    return optimizer.decay_copies(device=device) if decays and isinstance(optimizer, Sgd) else "none"


def _attention(recipe: Recipe, numbers: ModelNumbers, device: Device) -> Attention:
    asked = recipe.model.attention
    if asked.startswith("flash"):
        return "flash"
    # Soft caps within attention are known to the eager kernel alone.
    if asked == "eager" or (asked == "auto" and numbers.architecture.attention_soft_cap is not None):
        return "eager"
    return "sdpa"


def _strategy(asked: Strategy, recipe: Recipe) -> Strategy:
    if recipe.quantization is not None and asked == "zero3":
        raise RecipeError(
            f"quantization: {recipe.quantization.name} and {asked} do not go together: packed integers cannot be "
            "divided by rows. Use ddp, zero1 or zero2",
            place="--strategy",
        )
    return asked


def _notes_on_time(asked: Question, total: int) -> tuple[str, ...]:
    gpu = asked.pace.gpu
    if gpu is not None and gpu.memory_bytes < total:
        return (f"{gpu.name} does not hold it: the time is that of its operations, and it would not run there",)
    if gpu is None and asked.setup.device == "cuda" and not fitting(total):
        return ("no GPU of the list holds it, so no time and no price are told; --on names one all the same",)
    return ()


def _notes(asked: Question) -> tuple[str, ...]:
    recipe, setup = asked.recipe, asked.setup
    notes = []
    if recipe.training.micro_batch_size == "auto":
        notes.append("micro_batch_size: auto takes what fits; the figures are for one row at a time")
    elif micro_batch_rows(recipe) < recipe.training.micro_batch_size:
        notes.append(
            f"micro_batch_size: {recipe.training.micro_batch_size} is cut to the rows that a device has of a step: "
            f"training.batch_size is {recipe.training.batch_size}"
        )
    if recipe.task.rows == "conversations":
        notes.append("every token is taken to be learned, and every row to be of full length: the figures are the most")
    if recipe.task.rows in ("pairs", "unpaired"):
        notes.append("every text is taken to be of full length, and half of it to be the prompt")
    if recipe.task.name == "infill":
        notes.append(
            "tokens that infilling adds where the tokenizer has none are left out, and what training them takes"
        )
    context = recipe.model.context
    if context is not None and context.shifted_sparse_attention is not None:
        notes.append("attention is counted as over all of a row, not over shifted groups")
    if setup.adapter is not None and setup.adapter.decomposed:
        notes.append("what DoRA computes of whole weights for the while is left out")
    notes += notes_on_the_machine(recipe, setup, asked.numbers.weights)
    if recipe.parallel.processes == "auto":
        notes.append("processes: auto takes the GPUs that are there; the figures are for one process")
    if asked.rollout is not None:
        notes.append("the rollout is reckoned for one that decodes within the training process; ftk does not train so")
    if setup.device == "cuda":
        notes.append("figures are for a GPU; ask with --device cpu for a CPU")
    if not asked.numbers.is_known:
        notes.append(
            f"{asked.numbers.architecture.model_type} is not in the table of families: weights are counted exactly, "
            "activations are those of a plain decoder of its size"
        )
    return tuple(notes)
