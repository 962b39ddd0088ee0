"""What `ftk eval` measures beside the held-out rows: the same without their retrieved documents, and bias."""

from collections.abc import Callable, Sequence
from pathlib import Path

from ftk.core.types import Conversation, Examples
from ftk.data.batches import evaluation_batches
from ftk.data.prepare import PreparationReport, prepare
from ftk.data.render import Renderer
from ftk.evaluation.score import loss_metrics
from ftk.models.load import max_positions
from ftk.models.scoring import ScoringModel
from ftk.objectives.sft import Sft
from ftk.recipe.schema import Recipe
from ftk.runs.answers import evaluate_answers, pick_rows
from ftk.runs.bias import BiasData, measure_bias, read_bias
from ftk.runs.forward_size import forward_tokens
from ftk.runs.ready_model import ReadyModel
from ftk.runs.without_context import named_without_context, rows_without_context


def prepare_answers(
    recipe: Recipe,
    rows: Sequence[Conversation],
    renderer: Renderer,
    *,
    max_length: int,
    cache_folder: Path | None,
) -> tuple[Examples, PreparationReport]:
    """Rows whose answers are measured, those of them that the recipe learns from; prompts have no weight.

    Raises:
        DataError: as `prepare`.
    """
    task = recipe.task if isinstance(recipe.task, Sft) else Sft()
    return prepare(
        rows,
        renderer,
        settings=recipe.data,
        max_length=max_length,
        prompt_loss_weight=0.0,
        train_on=task.train_on,
        reasoning_weight=task.reasoning_weight,
        cache_folder=cache_folder,
    )


class Besides:
    """Reads what is needed first, so that what is wrong is told before the long work."""

    def __init__(
        self, recipe: Recipe, model: ReadyModel, renderer: Renderer, rows: Sequence[Conversation], *, max_length: int
    ) -> None:
        """
        Raises:
            DataError: a row of `evaluation.bias` does not read, or has none to compare with.
        """
        self._recipe, self._model, self._renderer, self._max_length = recipe, model, renderer, max_length
        self._closed = rows_without_context(rows) if recipe.evaluation.without_context else []
        positions = max_positions(model.causal_lm.config)
        self._bias: BiasData | None = read_bias(recipe, renderer, max_length=max_length, num_positions=positions)

    @property
    def has_bias(self) -> bool:
        """Whether bias is measured."""
        return self._bias is not None

    def figures(self, *, bias_file: Path | None, tell: Callable[[str], None]) -> dict[str, float]:
        """All figures, by name; the rows of bias are written to `bias_file`."""
        figures = self._without_context(tell) if self._closed else {}
        if self._bias is None:
            return figures
        return figures | measure_bias(
            self._bias,
            ScoringModel(self._model.causal_lm),
            self._model.causal_lm,
            self._renderer,
            tokens_per_batch=self._tokens_per_batch,
            max_new_tokens=self._recipe.evaluation.max_new_tokens,
            pad_token_id=self._model.pad_token_id,
            file=bias_file,
            tell=tell,
        )

    @property
    def _tokens_per_batch(self) -> int:
        return forward_tokens(next(self._model.causal_lm.parameters()).device)

    def _without_context(self, tell: Callable[[str], None]) -> dict[str, float]:
        recipe, settings, pad = self._recipe, self._recipe.evaluation, self._model.pad_token_id
        examples, _ = prepare_answers(
            recipe, self._closed, self._renderer, max_length=self._max_length, cache_folder=None
        )
        batches = evaluation_batches(examples, tokens_per_batch=self._tokens_per_batch, pad_token_id=pad)
        figures = {"loss": loss_metrics(ScoringModel(self._model.causal_lm), batches)["loss"]}
        if settings.metrics:
            answered = evaluate_answers(
                self._model.causal_lm,
                self._renderer,
                pick_rows(self._closed, settings.max_rows),
                metrics=settings.metrics,
                max_new_tokens=settings.max_new_tokens,
                pad_token_id=pad,
                by=settings.by,
                tell=lambda sentence: tell(f"without documents: {sentence}"),
            )
            figures |= answered.metrics
        return named_without_context(figures)
