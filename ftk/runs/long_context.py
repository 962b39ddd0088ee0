"""Whether a model reads far, and as well near by as before: measured for a run, beside its other figures."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ftk.core.positions import max_positions, rope_parts
from ftk.core.types import Batch, Examples
from ftk.data.batches import evaluation_batches
from ftk.evaluation.heatmap import cells_of, draw_heatmaps, print_heatmap
from ftk.evaluation.passkey import passkey_metrics
from ftk.evaluation.positions import position_metrics
from ftk.evaluation.score import loss_metrics
from ftk.models.as_trained import positions_as_trained
from ftk.models.load import load_config
from ftk.recipe.schema import Recipe
from ftk.runs.folder import RunFolder
from ftk.runs.forward_size import forward_tokens
from ftk.runs.passkeys import check_passkey, passkey_lengths
from ftk.runs.training_data import TrainingData

if TYPE_CHECKING:
    from accelerate import Accelerator

SHORT_LOSS = "short_loss"
"""Loss on the held-out rows, cut to the length that the model read before it was extended, in nats a token."""
UNSCALED = "@unscaled"
"""After the name of a figure that the model had before its positions were extended."""


class LongContext:
    """Measures how one model reads far, on the held-out rows of its recipe and on texts with a pass key."""

    def __init__(
        self, recipe: Recipe, data: TrainingData, batches: Sequence[Batch], accelerator: "Accelerator"
    ) -> None:
        self._recipe = recipe
        self._data = data
        self._batches = batches
        self._accelerator = accelerator
        self._original = original_config(recipe)
        self._short = self._short_batches()

    def measure(self, model: nn.Module) -> dict[str, float]:
        """Figures that the recipe asks for, and `short_loss` where it extends the model's positions."""
        settings, device = self._recipe.evaluation, self._accelerator.device
        figures: dict[str, float] = {}
        with self._accelerator.autocast():
            if self._short:
                figures[SHORT_LOSS] = float(loss_metrics(model, self._short, self._accelerator)["loss"])
            if settings.by_position and self._batches:
                figures |= position_metrics(model, self._batches, self._accelerator)
            if settings.passkey is not None:
                tokenizer, seed = self._data.tokenizer, self._recipe.seed
                figures |= passkey_metrics(
                    model,
                    tokenizer,
                    settings.passkey,
                    lengths=passkey_lengths(settings.passkey, tokenizer, max_length=self._data.max_length, seed=seed),
                    tokens_per_batch=forward_tokens(device),
                    seed=seed,
                    device=device,
                )
        return figures

    def measure_unscaled(self, model: nn.Module, causal_lm: nn.Module) -> dict[str, float]:
        """The same figures of the model as it was before its positions were scaled; none where they are not."""
        if self._original is None or not rope_parts(self._original.get_text_config(decoder=True)):
            return {}
        with positions_as_trained(causal_lm, self._original):
            return {f"{name}{UNSCALED}": value for name, value in self.measure(model).items()}

    def _short_batches(self) -> list[Batch]:
        of_pairs = self._recipe.task.rows not in ("conversations", "texts")
        if self._original is None or self._data.eval is None or of_pairs:
            return []
        return evaluation_batches(
            cut(self._data.eval.examples, max_positions(self._original) or self._data.max_length),
            tokens_per_batch=forward_tokens(self._accelerator.device),
            pad_token_id=self._data.pad_token_id,
            process_index=self._accelerator.process_index,
            num_processes=self._accelerator.num_processes,
        )


def original_config(recipe: Recipe) -> Any:
    """The model's configuration before the recipe extends it; None where it does not, or another run has already."""
    context = recipe.model.context
    if context is None or not context.extends:
        return None
    original = load_config(recipe.model.model_copy(update={"context": None}))
    return original if max_positions(original) != max_positions(load_config(recipe.model)) else None


def check_far(recipe: Recipe, data: TrainingData) -> None:
    """Find out, before anything is written or learned, that the texts with a pass key can be made and read.

    Raises:
        RecipeError: a length is beyond the model's positions, or too short for key and question.
    """
    if recipe.evaluation.passkey is not None:
        check_passkey(
            recipe.evaluation.passkey,
            data.tokenizer,
            max_length=data.max_length,
            positions=max_positions(load_config(recipe.model)),
            seed=recipe.seed,
            name=recipe.model.id,
        )


def cut(examples: Examples, length: int) -> Examples:
    """The rows without what lies beyond `length` tokens."""
    starts, ends = examples.offsets[:-1], np.minimum(examples.offsets[1:], examples.offsets[:-1] + length)
    kept = np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])
    return Examples(
        token_ids=examples.token_ids[kept],
        weights=examples.weights[kept],
        answers=examples.answers[kept],
        offsets=np.concatenate([[0], np.cumsum(ends - starts)]),
        rows_N=examples.rows_N,
        sources_N=examples.sources_N,
        source_names=examples.source_names,
        branches=None if examples.branches is None else examples.branches[kept],
        columns=examples.columns,
    )


def show_passkeys(folder: RunFolder, before: Mapping[str, float], after: Mapping[str, float]) -> None:
    """Print the heatmap of the tuned model, and draw all of them into the run folder."""
    panels = {
        "without scaling": cells_of(before, suffix=UNSCALED),
        "before": cells_of(before),
        "after": cells_of(after),
    }
    panels = {title: cells for title, cells in panels.items() if cells}
    if "after" not in panels:
        return
    print_heatmap("pass keys found by the tuned model, by depth and length", panels["after"])
    draw_heatmaps(folder.path / "passkey.png", panels)
