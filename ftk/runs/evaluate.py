"""`ftk eval`: loss on held-out rows, and judged answers to them, of a model, an adapter or a run."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ftk.core.types import Conversation, Examples
from ftk.data.cache import default_cache_folder
from ftk.data.comparisons import conversations, read_comparisons
from ftk.data.infill_format import find_format
from ftk.data.load import read_conversations
from ftk.data.render import Renderer
from ftk.data.settings import Source
from ftk.evaluation.score import loss_metrics
from ftk.models.load import max_positions
from ftk.models.scoring import ScoringModel
from ftk.objectives.cpt import Cpt
from ftk.objectives.infill import Infill
from ftk.objectives.preference.task import Preference
from ftk.objectives.sft import Sft
from ftk.recipe.schema import Recipe
from ftk.runs.answers import Answered, ask, evaluate_answers, pick_rows, pick_shots, write_answers
from ftk.runs.eval_request import EvalRequest, file_for_answers, free_file, recipe_to_evaluate
from ftk.runs.evaluate_besides import Besides, prepare_answers
from ftk.runs.evaluate_far import by_position, check_pass_keys, pass_keys
from ftk.runs.evaluate_texts import evaluate_infilling, evaluate_texts, infilling_losses
from ftk.runs.evaluation import Evaluation, batches_of
from ftk.runs.out_of_memory import USE_REMEDIES, out_of_memory_told
from ftk.runs.ready_model import ReadyModel, load_ready_model
from ftk.runs.training_data import recipe_renderer
from ftk.runs.trust import tell_of_code

UNBOUND = 2**31 - 1


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
    recipe, is_bare = recipe_to_evaluate(request)
    answers_file = file_for_answers(request) if recipe.evaluation.metrics else None
    tell_of_code(recipe.model, tell)
    model = load_ready_model(recipe.model, quantization=recipe.quantization)
    max_length = _max_length(recipe, model, is_bare=is_bare)
    check_pass_keys(recipe, model, max_length=max_length)
    if isinstance(recipe.task, Infill):
        evaluation = evaluate_infilling(recipe, model, start, answers_file, is_bare=is_bare, tell=tell)
    elif isinstance(recipe.task, Cpt):
        evaluation = evaluate_texts(recipe, model, start, tell)
    else:
        evaluation = _rows(request, recipe, model, start, answers_file, max_length=max_length, tell=tell)
    losses = {**evaluation.losses, **pass_keys(recipe, model, max_length=max_length)}
    return replace(evaluation, losses=losses, seconds=time.perf_counter() - start)


def _rows(
    request: EvalRequest,
    recipe: Recipe,
    model: ReadyModel,
    start: float,
    answers_file: Path | None,
    *,
    max_length: int,
    tell: Callable[[str], None],
) -> Evaluation:
    """A model that answers, by its loss on held-out answers and by its own."""
    renderer = recipe_renderer(recipe, model.tokenizer)
    rows = _held_out(recipe, tell, as_trained=request.data is None)
    examples = _examples(recipe, rows, renderer, max_length, tell)
    besides = Besides(recipe, model, renderer, rows, max_length=max_length)
    asked, shown = _questions(recipe, model, renderer, rows, as_trained=request.train_data is None)
    batches = batches_of(examples, model)
    losses = loss_metrics(ScoringModel(model.causal_lm), batches) | by_position(recipe, model, batches)
    bias_file = free_file(request.model, "bias") if besides.has_bias else None
    losses |= besides.figures(bias_file=bias_file, tell=tell)
    answered = _answers(recipe, model, renderer, asked, shown, tell)
    if answers_file is not None:
        write_answers(answers_file, answered)
    return Evaluation(losses, answered, len(examples), time.perf_counter() - start, answers_file)


def losses_of(recipe: Recipe, model: ReadyModel, *, tell: Callable[[str], None]) -> Mapping[str, float]:
    """Figures of a model on the held-out rows of a recipe, as far as they need no generated answers.

    Raises:
        RecipeError, DataError: the rows are none for this model, such as longer ones than it reads.
    """
    if isinstance(recipe.task, Infill):
        # A model that knows no holes is measured left to right alone.
        return infilling_losses(recipe, model, as_trained=find_format(model.tokenizer) is not None)[0]
    if isinstance(recipe.task, Cpt):
        return evaluate_texts(recipe, model, time.perf_counter(), tell).losses
    renderer = recipe_renderer(recipe, model.tokenizer)
    rows = _held_out(recipe, tell, as_trained=True)
    examples = _examples(recipe, rows, renderer, _max_length(recipe, model, is_bare=False), tell)
    return loss_metrics(ScoringModel(model.causal_lm), batches_of(examples, model))


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
    examples, report = prepare_answers(
        recipe, rows, renderer, max_length=max_length, cache_folder=default_cache_folder()
    )
    for taken in report.taken:
        tell(str(taken))
    if report.num_truncated:
        tell(
            f"{report.num_truncated} of {report.num_rows} rows are longer than {max_length} tokens; "
            f"{report.num_dropped} of them are left out of the loss, the others cut"
        )
    return examples


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
            tell=_about_shots(tell, num_shots),
        )
        for num_shots, shots in shown.items()
    )


def _about_shots(tell: Callable[[str], None], num_shots: int) -> Callable[[str], None]:
    return lambda sentence: tell(f"with {num_shots} examples: {sentence}")
