"""What `ftk estimate-memory` was asked: a recipe with overrides, or a model with flags, as one question."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast, get_args

from ftk.core.errors import RecipeError
from ftk.memory.gpus import find_gpu
from ftk.memory.setup import STRATEGIES
from ftk.memory.units import one_of, parse_count
from ftk.recipe.load import LoadedRecipe, load_recipe
from ftk.recipe.load_values import recipe_of
from ftk.runs.estimate import Device, Pace, Question, question
from ftk.train.settings import Strategy

DTYPES = {
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "float16": "fp16",
    "half": "fp16",
    "fp32": "fp32",
    "float32": "fp32",
}
TRAINABLE = get_args(Strategy)
"""Ways to spread a model in which ftk trains, and so a recipe can name; the others are answered for comparison."""
OPTIMIZERS = {"adamw": "adamw", "adam": "adamw", "sgd": "sgd", "momentum": "{name: sgd, momentum: 0.9}"}


@dataclass(frozen=True, slots=True)
class Flags:
    """The flags as they were given."""

    model: str | None = None
    dtype: str | None = None
    batch_size: str | None = None
    sequence_length: str | None = None
    tuning: str | None = None
    quantization: str | None = None
    optimizer: str | None = None
    checkpointing: bool | None = None
    processes: str | None = None
    strategy: str | None = None
    device: str = "cuda"
    tokens: str | None = None
    on: str | None = None
    utilisation: float | None = None
    price: float | None = None
    rollout: str | None = None

    def refuse_pace(self, why: str, *names: str) -> None:
        """
        Raises:
            RecipeError: one of these flags was given, which would do nothing.
        """
        given = next((name for name in names or PACE if getattr(self, name) is not None), None)
        if given is not None:
            raise RecipeError(f"--{given} {why}", place=f"--{given}")


PACE = ("tokens", "on", "utilisation", "price", "rollout")
"""Flags about what one estimate tells beside the bytes of training: work, time, price, and answers drawn meanwhile."""


def ask(words: Sequence[str], flags: Flags) -> Question:
    """The question that words and flags stand for. Flags are overrides; overrides that were written out win.

    Raises:
        FtkError: anything in them is wrong or contradicts the rest.
    """
    loaded = recipe_asked(words, flags)
    strategy = next((known for known in STRATEGIES if known == flags.strategy), None)
    if strategy not in (None, "ddp") and loaded.recipe.parallel.processes in (1, "auto"):
        raise RecipeError(
            f"{strategy} spreads the model over processes, and there is one. Give --processes 2 or more",
            place="--strategy",
        )
    return question(
        loaded.recipe,
        device=cast(Device, flags.device),
        strategy=strategy,
        pace=_pace(flags),
        rollout=_rollout(flags.rollout) if flags.rollout is not None else None,
    )


def recipe_asked(words: Sequence[str], flags: Flags) -> LoadedRecipe:
    """The recipe that words and flags stand for.

    Raises:
        RecipeError: anything in them is wrong or contradicts the rest.
    """
    recipe, overrides = split(words)
    if recipe is None and flags.model is None:
        raise RecipeError(
            "nothing to estimate: give a recipe file, --model with a hub id, a folder or a config.json, or --params "
            "with a number such as 13B"
        )
    if flags.device not in ("cuda", "cpu"):
        raise RecipeError(f"{flags.device} is no device. Expected cuda or cpu", place="--device")
    given = [*_overrides(flags), *overrides]
    if recipe is not None:
        model = [f"model.id={flags.model}"] if flags.model else []
        return load_recipe(recipe, [*model, *given])
    alone = [] if any("batch_size=" in one or "batch_tokens=" in one for one in overrides) else list(_alone(flags))
    return recipe_of({"model": str(flags.model), "data": _NO_DATA}, [*alone, *given])


def _pace(flags: Flags) -> Pace:
    if flags.device == "cpu":
        why = "is about a GPU, and --device is cpu, of which no time is told. Leave one of them out"
        flags.refuse_pace(why, "on", "utilisation", "price")
    if flags.utilisation is not None and not 0 < flags.utilisation <= 1:
        raise RecipeError(f"{flags.utilisation} is no part of a peak. Expected such as 0.4", place="--utilisation")
    if flags.price is not None and flags.price < 0:
        raise RecipeError(f"{flags.price} is below zero", place="--price")
    pace = Pace(gpu=find_gpu(flags.on, place="--on") if flags.on is not None else None, dollars_per_hour=flags.price)
    if flags.utilisation is not None:
        pace = replace(pace, utilisation=flags.utilisation)
    return pace if flags.tokens is None else replace(pace, tokens=_whole(flags.tokens, "--tokens"))


def _rollout(text: str) -> tuple[int, int | None]:
    answers, times, length = text.lower().partition("x")
    return _whole(answers, "--rollout"), _whole(length, "--rollout") if times else None


_NO_DATA = "ftk://orders/train"
"""A recipe must name data; an estimate of a model does not read any."""


def split(words: Sequence[str]) -> tuple[str | None, list[str]]:
    """The recipe file among the words, if there is one, and the overrides."""
    recipe = words[0] if words and "=" not in words[0] else None
    overrides = list(words[1:] if recipe is not None else words)
    return recipe, overrides


def _overrides(flags: Flags) -> Iterator[str]:
    if flags.dtype is not None:
        yield f"training.precision={one_of(flags.dtype, DTYPES, place='--dtype')}"
    if flags.batch_size is not None:
        yield f"training.micro_batch_size={_whole(flags.batch_size, '--batch-size')}"
    if flags.sequence_length is not None:
        yield f"data.max_length={_whole(flags.sequence_length, '--sequence-length')}"
    yield from _tuning(flags)
    if flags.optimizer is not None:
        known = OPTIMIZERS.get(flags.optimizer.lower(), flags.optimizer)
        yield f"training.optimizer={known}"
    if flags.checkpointing is not None:
        yield f"training.activation_checkpointing={str(flags.checkpointing).lower()}"
    if flags.processes is not None:
        yield f"parallel.processes={_whole(flags.processes, '--processes')}"
    if flags.strategy is not None:
        known = one_of(flags.strategy, {one: one for one in STRATEGIES}, place="--strategy")
        if known in TRAINABLE:
            yield f"parallel.strategy={known}"


def _tuning(flags: Flags) -> Iterator[str]:
    quantization = flags.quantization
    if flags.tuning == "qlora":
        if quantization in ("none", "null"):
            raise RecipeError(
                "qlora is LoRA beneath which weights are quantized, and --quantization none leaves them plain. "
                "Give --tuning lora, or --quantization nf4",
                place="--tuning",
            )
        yield "tuning=lora"
        yield f"quantization={quantization or 'nf4'}"
        return
    if flags.tuning is not None:
        yield f"tuning={flags.tuning}"
    if quantization is not None:
        yield f"quantization={'null' if quantization == 'none' else quantization}"


def _alone(flags: Flags) -> Iterator[str]:
    """A model by itself takes one micro-batch a step."""
    rows = _whole(flags.batch_size or "1", "--batch-size")
    processes = _whole(flags.processes or "1", "--processes")
    yield f"training.micro_batch_size={rows}"
    yield f"training.batch_size={rows * processes}"
    yield f"parallel.processes={processes}"


def _whole(text: str, place: str) -> int:
    return parse_count(text, place=place)
