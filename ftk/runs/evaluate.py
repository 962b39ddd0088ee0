"""`ftk eval`: loss on held-out rows, and judged answers to them, of a model, an adapter or a run."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ftk.core.atomic import try_to_write
from ftk.core.errors import RecipeError
from ftk.core.types import Conversation, Examples
from ftk.data.batches import evaluation_batches
from ftk.data.cache import default_cache_folder
from ftk.data.comparisons import conversations, read_comparisons
from ftk.data.load import read_conversations
from ftk.data.prepare import prepare
from ftk.data.render import Renderer
from ftk.data.settings import Source
from ftk.evaluation.score import loss_metrics, objective_metrics
from ftk.models.load import max_positions
from ftk.models.scoring import ScoringModel
from ftk.objectives.cpt import Cpt
from ftk.objectives.preference.task import Preference
from ftk.objectives.sft import Sft
from ftk.recipe.load import load_recipe
from ftk.recipe.schema import Recipe
from ftk.runs.answers import Answered, ask, evaluate_answers, pick_rows, pick_shots, write_answers
from ftk.runs.evaluate_besides import Besides
from ftk.runs.forward_size import forward_tokens
from ftk.runs.out_of_memory import USE_REMEDIES, out_of_memory_told
from ftk.runs.ready_model import ReadyModel, load_ready_model, recipe_beside
from ftk.runs.training_data import max_length_of, read_text_part, recipe_renderer
from ftk.runs.trust import tell_of_code

UNBOUND = 2**31 - 1
_BARE_RECIPE = "model: ftk://tiny\ndata: {train: ftk://orders/train}\n"
"""What a model without a recipe is evaluated by, before the flags are put on top."""


@dataclass(frozen=True)
class EvalRequest:
    """What the command line asks for; None leaves it to the run's recipe, or to the default."""

    model: str
    data: str | None = None
    format: str | None = None
    columns: Mapping[str, str] | None = None
    subset: str | None = None
    split: str | None = None
    metrics: str | None = None
    """Names with commas between, or a YAML list."""
    shots: str = "0"
    train_data: str | None = None
    by: str | None = None
    max_new_tokens: int | None = None
    max_rows: int | None = None
    chat_template: str | None = None
    revision: str | None = None
    seed: int | None = None
    output: str | None = None
    bias: str | None = None


@dataclass(frozen=True)
class Evaluation:
    """How good a model is."""

    losses: Mapping[str, float]
    answered: tuple[Answered, ...]
    """One for each number of examples in the prompt."""
    num_examples: int
    seconds: float
    answers_file: Path | None

    @property
    def metrics(self) -> dict[str, float]:
        """All figures; those with k examples in the prompt as `metric@k`."""
        named = dict(self.losses)
        for one in self.answered:
            suffix = f"@{one.num_shots}" if one.num_shots else ""
            named |= {f"{name}{suffix}": value for name, value in one.metrics.items()}
        return named

    def as_json(self) -> dict[str, Any]:
        return {
            "metrics": self.metrics,
            "num_examples": self.num_examples,
            "seconds": self.seconds,
            "answers_file": None if self.answers_file is None else str(self.answers_file),
        }


@out_of_memory_told(USE_REMEDIES)
def evaluate(request: EvalRequest, *, tell: Callable[[str], None]) -> Evaluation:
    """Measure a model on held-out rows.

    Args:
        request: a run folder brings its recipe: the data, metrics and template that it was trained with.
        tell: takes sentences for a person.

    Raises:
        RecipeError: a flag is wrong, or neither the command nor a recipe says what data.
        ModelError, DataError: the model or a row cannot be used.
        RunError: a metric of the user's own failed.
    """
    start = time.perf_counter()
    recipe, is_bare = _recipe(request)
    answers_file = _answers_file(request) if recipe.evaluation.metrics else None
    tell_of_code(recipe.model, tell)
    model = load_ready_model(recipe.model, quantization=recipe.quantization)
    if isinstance(recipe.task, Cpt):
        return _texts(recipe, model, start, tell)
    renderer = recipe_renderer(recipe, model.tokenizer)
    rows = _held_out(recipe, tell, as_trained=request.data is None)
    max_length = _max_length(recipe, model, is_bare=is_bare)
    examples = _examples(recipe, rows, renderer, max_length, tell)
    besides = Besides(recipe, model, renderer, rows, max_length=max_length)
    asked, shown = _questions(recipe, model, renderer, rows, as_trained=request.train_data is None)
    losses = loss_metrics(ScoringModel(model.causal_lm), _batches(examples, model))
    bias_file = _free_file(request.model, "bias") if besides.has_bias else None
    losses |= besides.figures(bias_file=bias_file, tell=tell)
    answered = _answers(recipe, model, renderer, asked, shown, tell)
    if answers_file is not None:
        write_answers(answers_file, answered)
    return Evaluation(losses, answered, len(examples), time.perf_counter() - start, answers_file)


def _texts(recipe: Recipe, model: ReadyModel, start: float, tell: Callable[[str], None]) -> Evaluation:
    """A model of plain text, by its perplexity and bits a byte on the held-out ones."""
    part = read_text_part(
        recipe, recipe.data.eval, tokenizer=model.tokenizer, role="data.eval", max_length=max_length_of(recipe)
    )
    for line in part.report.lines():
        tell(line)
    figures = objective_metrics(ScoringModel(model.causal_lm), recipe.task.objective(), _batches(part.examples, model))
    return Evaluation(figures, (), len(part.examples), time.perf_counter() - start, None)


def _recipe(request: EvalRequest) -> tuple[Recipe, bool]:
    """The run's recipe with the flags on top, and whether there was no run."""
    own = recipe_beside(request.model)
    if own is None and request.data is None:
        raise RecipeError(
            f"{request.model} is no run folder that would bring its own held-out rows. Name some with --data"
        )
    overrides = list(_overrides(request))
    if own is not None:
        recipe = load_recipe(str(own), overrides).recipe
    else:
        with tempfile.TemporaryDirectory() as folder:
            bare = Path(folder) / "recipe.yaml"
            bare.write_text(_BARE_RECIPE, encoding="utf-8")
            recipe = load_recipe(str(bare), overrides).recipe
    if not recipe.data.eval:
        raise RecipeError(f"the recipe of {request.model} names no held-out rows. Name some with --data")
    if own is None and any(recipe.evaluation.shots) and request.train_data is None:
        raise RecipeError("--shots shows training rows in the prompt. Name them with --train-data")
    return recipe, own is None


def _overrides(request: EvalRequest) -> list[str]:
    """The flags as paths of a recipe, so that they are checked and explained like one."""
    values: dict[str, Any] = {"model.id": request.model, "model.revision": request.revision}
    if request.data is not None:
        values["data.eval"] = [_source(request, request.data)]
    if request.train_data is not None:
        values["data.train"] = [_source(request, request.train_data, is_train=True)]
    values |= {
        "data.chat_template": request.chat_template,
        "evaluation.by": request.by,
        "evaluation.max_new_tokens": request.max_new_tokens,
        "evaluation.max_rows": request.max_rows,
        "evaluation.bias": None if request.bias is None else {"source": request.bias},
        "seed": request.seed,
    }
    written = [f"{path}={json.dumps(value)}" for path, value in values.items() if value is not None]
    # An id of another model is not at the revision that the run's base was at.
    revision = ["model.revision=null"] if request.revision is None else []
    before = ["evaluation.before=true", *revision, *written]
    if request.metrics is not None:
        before.append(f"evaluation.metrics={_listed(request.metrics)}")
    return [*before, f"evaluation.shots={_listed(request.shots)}"]


def _source(request: EvalRequest, name: str, *, is_train: bool = False) -> dict[str, Any]:
    settings = {
        "source": name,
        "format": request.format,
        "columns": request.columns,
        "subset": request.subset,
        "split": None if is_train else request.split,
    }
    return {key: value for key, value in settings.items() if value}


def _listed(text: str) -> str:
    """`a,b` as the YAML list `[a, b]`; a list or a mapping as it is."""
    stripped = text.strip()
    return stripped if stripped.startswith(("[", "{")) else f"[{stripped}]"


def _max_length(recipe: Recipe, model: ReadyModel, *, is_bare: bool) -> int:
    positions = max_positions(model.causal_lm.config)
    return (None if is_bare else recipe.data.max_length) or positions or UNBOUND


def _held_out(recipe: Recipe, tell: Callable[[str], None], *, as_trained: bool) -> Sequence[Conversation]:
    """The rows to be measured on. Of the preferences of a run's recipe, its chosen answers."""
    if isinstance(recipe.task, Sft) or not as_trained:
        return read_conversations(recipe.data.eval, role="data.eval", retrieval=recipe.data.retrieval.held_out)
    tell("held-out preferences are measured by their chosen answers; rewards and accuracy are in the run's own report")
    return _chosen(recipe, recipe.data.eval, role="data.eval")


def _chosen(recipe: Recipe, sources: Sequence[Source], *, role: str) -> list[Conversation]:
    assert isinstance(recipe.task, Preference)
    return conversations(read_comparisons(sources, role=role, unpaired=recipe.task.rows == "unpaired"))


def _examples(
    recipe: Recipe,
    rows: Sequence[Conversation],
    renderer: Renderer,
    max_length: int,
    tell: Callable[[str], None],
) -> Examples:
    # Prompts have no weight: the figures are of answers alone.
    examples, report = prepare(
        rows,
        renderer,
        settings=recipe.data,
        max_length=max_length,
        prompt_loss_weight=0.0,
        train_on=recipe.task.train_on if isinstance(recipe.task, Sft) else "all",
        cache_folder=default_cache_folder(),
    )
    for taken in report.taken:
        tell(str(taken))
    if report.num_truncated:
        tell(
            f"{report.num_truncated} of {report.num_rows} rows are longer than {max_length} tokens; "
            f"{report.num_dropped} of them are left out of the loss, the others cut"
        )
    return examples


def _batches(examples: Examples, model: ReadyModel) -> Sequence[Any]:
    device = next(model.causal_lm.parameters()).device
    return evaluation_batches(examples, tokens_per_batch=forward_tokens(device), pad_token_id=model.pad_token_id)


Shown = Mapping[int, Sequence[Conversation]]
"""Examples that stand in the prompt, by their number."""


def _questions(
    recipe: Recipe, model: ReadyModel, renderer: Renderer, rows: Sequence[Conversation], *, as_trained: bool
) -> tuple[Sequence[Conversation], Shown]:
    """The rows that are asked, and the examples shown; that they can be asked and judged is found out first."""
    settings = recipe.evaluation
    if not settings.metrics:
        return [], {}
    asked = pick_rows(rows, settings.max_rows)
    train_rows: Sequence[Conversation] = []
    if any(settings.shots):
        is_preference = as_trained and isinstance(recipe.task, Preference)
        read = (
            partial(_chosen, recipe) if is_preference else partial(read_conversations, retrieval=recipe.data.retrieval)
        )
        train_rows = read(recipe.data.train, role="data.train")
    shown = {
        number: pick_shots(train_rows, number, seed=recipe.seed, without=asked) if number else []
        for number in settings.shots
    }
    positions = max_positions(model.causal_lm.config)
    for shots in shown.values():
        ask(renderer, asked, metrics=settings.metrics, max_positions=positions, shots=shots, by=settings.by)
    return asked, shown


def _answers(
    recipe: Recipe,
    model: ReadyModel,
    renderer: Renderer,
    asked: Sequence[Conversation],
    shown: Shown,
    tell: Callable[[str], None],
) -> tuple[Answered, ...]:
    settings = recipe.evaluation
    return tuple(
        evaluate_answers(
            model.causal_lm,
            renderer,
            asked,
            metrics=settings.metrics,
            max_new_tokens=settings.max_new_tokens,
            pad_token_id=model.pad_token_id,
            shots=shots,
            by=settings.by,
            tell=lambda sentence, num_shots=num_shots: tell(f"with {num_shots} examples: {sentence}"),  # type: ignore[misc]
        )
        for num_shots, shots in shown.items()
    )


def _answers_file(request: EvalRequest) -> Path:
    """Where answers go, which is found out before the long work of generating them.

    Raises:
        RecipeError: nothing can be written there.
    """
    path = Path(request.output).expanduser() if request.output else _free_file(request.model, "answers")
    try:
        try_to_write(path)
    except OSError as error:
        raise RecipeError(f"the answers cannot be written: {error.strerror or error}", place=str(path)) from error
    return path


def _free_file(model: str, name: str) -> Path:
    """Where rows go when nothing is said: beside a run's other evaluations, else here; under the next free name."""
    recipe = recipe_beside(model)
    folder = recipe.parent / "evaluations" if recipe is not None else Path()
    number = 1
    while (path := folder / f"{name}{f'-{number}' if number > 1 else ''}.jsonl").exists():
        number += 1
    return path
