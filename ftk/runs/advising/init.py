"""`ftk init`: a first recipe for some data, a model and a memory, with the reason for each choice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml

from ftk.core.errors import FtkError, ModelError, RecipeError
from ftk.memory.units import shown
from ftk.models.load import load_tokenizer
from ftk.models.settings import ModelSettings
from ftk.recipe.load import LoadedRecipe, load_recipe
from ftk.recipe.schema import Recipe
from ftk.runs.advising.choices import Choice, choices
from ftk.runs.advising.data_look import DataLook, look_at
from ftk.runs.advising.fit import Fit, Plan, find_fit
from ftk.runs.advising.memory_size import free_bytes, memory_of
from ftk.runs.advising.recipe_text import recipe_text
from ftk.runs.advising.written import check_new_file, write_recipe
from ftk.runs.estimate import Device, Question, question
from ftk.train.group import best_device

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Begun:
    """A recipe that was written."""

    file: Path
    loaded: LoadedRecipe
    choices: tuple[Choice, ...]
    look: DataLook
    fit: Fit
    expected_bytes: int

    def as_json(self) -> dict[str, Any]:
        return {
            "file": str(self.file),
            "task": self.look.kind,
            "format": self.look.format,
            "num_rows": self.look.num_rows,
            "tokens_counted": self.look.is_counted,
            "memory_bytes": self.fit.memory_bytes,
            "expected_bytes": self.expected_bytes,
            "reasons": {choice.path: choice.reason for choice in self.choices if choice.reason},
            "recipe": self.loaded.resolved(),
        }


def begin(data: str, *, model: str, gpu: str | None, out: str, eval: str | None, tell: Callable[[str], None]) -> Begun:
    """Look at data, model and memory, and write the recipe.

    Args:
        data: a file, a folder of files, a hub data set id or `ftk://orders/train`.
        model: hub id, folder or run folder.
        gpu: a size such as 24GB or a name such as RTX 4090; None takes what this machine has.
        out: the file to write, which must not exist.
        eval: held-out rows; None holds some of the data out.
        tell: how a person is told what could not be found out.

    Raises:
        FtkError: data, model or memory say nothing, nothing fits, or the file is there.
    """
    file = Path(out)
    check_new_file(file)
    memory_bytes, device, where = _memory(gpu)
    settings = ModelSettings(id=model)
    look = look_at(data, _tokenizer(settings, tell))
    values, asked = _draft(look, settings, eval, device=device, memory_bytes=memory_bytes)
    fit = find_fit(asked, memory_bytes, one_device=True)
    expected = fit.total_bytes
    if not fit.fits:
        if not fit.plans:
            raise _too_large(model, fit)
        values, expected = _with_plan(values, fit.plans[0]), fit.plans[0].total_bytes
    values = [*values, Choice("checkpoint", {"every": "1 epoch", "keep": 2}), Choice("output", f"runs/{file.stem}")]
    head = [
        f"{look.num_rows:,} {'texts' if look.is_text else 'rows'} of {data} for {model}: written by ftk init.",
        "",
        f"  ftk data preview {file}    see what the model will see",
        f"  ftk train {file}",
        "",
        f"Takes about {shown(expected)} by ftk estimate-memory, for {shown(memory_bytes)} ({where}).",
    ]
    write_recipe(file, recipe_text(head, values))
    return Begun(file, load_recipe(str(file)), tuple(values), look, fit, expected)


def _memory(gpu: str | None) -> tuple[int, Device, str]:
    if gpu is not None:
        return memory_of(gpu, place="--gpu"), "cuda", gpu
    device = best_device()
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory), "cuda", torch.cuda.get_device_name(device)
    free = free_bytes(device)
    if free is None:
        raise RecipeError("this system does not say how much memory is free. Say it: --gpu 24GB", place="--gpu")
    return free, "cpu", "free on this machine, which has no GPU"


def _tokenizer(settings: ModelSettings, tell: Callable[[str], None]) -> "PreTrainedTokenizerBase | None":
    """The model's tokenizer; from the hub without its weights. None where it is not to be had."""
    try:
        if settings.id.startswith("ftk://") or Path(settings.id).expanduser().exists():
            return load_tokenizer(settings)
        return _from_hub(settings.id)
    except ModelError as error:
        tell(f"{error}. Tokens are guessed from characters")
        return None


def _from_hub(name: str) -> "PreTrainedTokenizerBase":
    from huggingface_hub import hf_hub_download
    from transformers import AutoTokenizer

    try:
        # By itself transformers asks for many files in turn, and waits long for each where there is no connection.
        hf_hub_download(name, "tokenizer_config.json")
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"the tokenizer of {name} is not to be had ({type(error).__name__})") from error
    return tokenizer


def _draft(
    look: DataLook, settings: ModelSettings, eval: str | None, *, device: Device, memory_bytes: int
) -> tuple[list[Choice], Question]:
    """The choices without regard to memory, and what they would take."""
    bare = Recipe.model_validate({"model": settings.id, "data": {"train": look.source.source}})
    numbers = question(bare, device=device).numbers
    values = choices(
        look,
        num_parameters=numbers.weights.total,
        positions=numbers.architecture.positions,
        on_gpu=device == "cuda",
        model=settings.id,
    )
    if eval is not None:
        values = [_with_eval(choice, eval) for choice in values]
        if not any(choice.path == "data.eval" for choice in values):
            place = next(place for place, choice in enumerate(values) if choice.path == "data.train")
            values.insert(place + 1, Choice("data.eval", {"source": eval}, "held-out rows, as named"))
    recipe = Recipe.model_validate(_nested(values))
    return values, question(recipe, device=device, device_bytes=memory_bytes, numbers=numbers)


def _with_eval(choice: Choice, eval: str) -> Choice:
    if choice.path == "data.eval":
        value = {key: one for key, one in choice.value.items() if key != "split"}
        return Choice("data.eval", {**value, "source": eval}, "held-out rows, as named")
    if choice.path == "data.train":
        return Choice("data.train", {key: one for key, one in choice.value.items() if key != "split"})
    return choice


def _with_plan(values: Sequence[Choice], plan: Plan) -> list[Choice]:
    """The choices with what makes them fit; each with the reason of the change."""
    found = list(values)
    for change in plan.changes:
        for override in change.overrides:
            path, _, text = override.partition("=")
            found = _put(found, Choice(path, yaml.safe_load(text), f"so that it fits: {change.reason}"))
    return found


def _put(values: Sequence[Choice], new: Choice) -> list[Choice]:
    if new.path == "tuning":
        new = replace(new, path="tuning.name")
        values = [choice for choice in values if not choice.path.startswith("tuning.") or choice.path == new.path]
    if new.path == "training.learning_rate":
        new = replace(new, value=float(new.value))
    if any(choice.path == new.path for choice in values):
        return [new if choice.path == new.path else choice for choice in values]
    section = new.path.partition(".")[0]
    places = [place for place, choice in enumerate(values) if choice.path.partition(".")[0] == section]
    # A section of its own goes before training.
    before = places[-1] + 1 if places else [choice.path for choice in values].index("training.epochs")
    return [*values[:before], new, *values[before:]]


def _nested(values: Sequence[Choice]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for choice in values:
        section, _, key = choice.path.partition(".")
        if key:
            nested.setdefault(section, {})[key] = choice.value
        else:
            nested[section] = choice.value
    return nested


def _too_large(model: str, fit: Fit) -> FtkError:
    nearest = (
        f": the least, with {' '.join(fit.nearest.overrides)}, is {shown(fit.nearest.total_bytes)}"
        if fit.nearest
        else ""
    )
    return RecipeError(
        f"{model} cannot be trained on these rows in {shown(fit.memory_bytes)}{nearest}. Take a smaller model or more "
        "memory",
        place="--gpu",
    )
