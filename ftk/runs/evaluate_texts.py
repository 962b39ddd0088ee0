"""`ftk eval` of models of plain text, read left to right, and of those that fill holes in it."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ftk.data.holes import text_sources
from ftk.data.infill_prompt import InfillPrompts
from ftk.evaluation.score import objective_metrics
from ftk.models.scoring import ScoringModel
from ftk.recipe.schema import Recipe
from ftk.runs.evaluate_far import by_position
from ftk.runs.evaluation import Evaluation, batches_of
from ftk.runs.infilling import Filler, held_out_holes, infilling_of
from ftk.runs.max_length import max_length_of
from ftk.runs.ready_model import ReadyModel
from ftk.runs.training_data import read_text_part


def evaluate_texts(recipe: Recipe, model: ReadyModel, start: float, tell: Callable[[str], None]) -> Evaluation:
    """A model of plain text, by its perplexity and bits a byte on the held-out ones."""
    part = read_text_part(
        recipe, recipe.data.eval, tokenizer=model.tokenizer, role="data.eval", max_length=max_length_of(recipe)
    )
    for line in part.report.lines():
        tell(line)
    batches = batches_of(part.examples, model)
    figures = objective_metrics(ScoringModel(model.causal_lm), recipe.task.objective(), batches)
    figures |= by_position(recipe, model, batches)
    return Evaluation(figures, (), len(part.examples), time.perf_counter() - start, None)


def evaluate_infilling(
    recipe: Recipe,
    model: ReadyModel,
    start: float,
    answers_file: Path | None,
    *,
    is_bare: bool,
    tell: Callable[[str], None],
) -> Evaluation:
    """How a model reads the held-out texts left to right, and fills the holes in them or those of rows."""
    max_length = max_length_of(recipe)
    # Found out before the work: a model without infilling tokens cannot fill holes.
    InfillPrompts(model.tokenizer)
    # Of a model without a recipe nobody knows how its texts would be cut.
    figures, num_examples = infilling_losses(recipe, model, as_trained=not is_bare)
    holes = held_out_holes(recipe, model.tokenizer, max_length=max_length)
    settings = recipe.evaluation
    filler = Filler(model.tokenizer, settings.metrics, settings.max_new_tokens, model.pad_token_id, settings.by, tell)
    answered = (filler.fill(model.causal_lm, holes, answers_file=answers_file),) if holes else ()
    return Evaluation(figures, answered, num_examples or len(holes), time.perf_counter() - start, answers_file)


def infilling_losses(recipe: Recipe, model: ReadyModel, *, as_trained: bool) -> tuple[dict[str, float], int]:
    """Figures of the held-out texts left to right, and rearranged as in training; and how many pieces they are."""
    texts = text_sources(recipe.data.eval)
    if not texts:
        return {}, 0
    longest = max_length_of(recipe)
    read = partial(read_text_part, recipe, texts, tokenizer=model.tokenizer, role="data.eval", max_length=longest)
    # What texts are rearranged with is set apart in the tokenizer, before any text is read.
    how = infilling_of(recipe, model.tokenizer)[0] if as_trained else None
    parts = {"": read(infilling=how)} if how is not None else {}
    parts["left_to_right_"] = read()
    scoring = ScoringModel(model.causal_lm)
    figures: dict[str, float] = {}
    for prefix, part in parts.items():
        batches = batches_of(part.examples, model)
        found = objective_metrics(scoring, recipe.task.objective(), batches)
        names = ("loss", "bits_per_byte") if prefix else tuple(found)
        figures |= {f"{prefix}{name}": found[name] for name in names}
        if part is parts.get("", part):
            figures |= by_position(recipe, model, batches)
    return figures, len(parts["left_to_right_"].examples)
