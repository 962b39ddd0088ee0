"""The model of a run, measured: losses while it trains, and everything before and after."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from ftk.core.errors import DataError
from ftk.core.types import Batch, Conversation
from ftk.data.batches import evaluation_batches
from ftk.evaluation.retention import forgetting, general_text_batches, general_text_bytes
from ftk.evaluation.score import loss_metrics, objective_metrics
from ftk.models.load import load_config, max_positions
from ftk.numerics.likelihood import bits_per_byte, perplexity
from ftk.recipe.schema import Recipe
from ftk.runs.answers import ask, evaluate_answers, pick_rows, pick_shots
from ftk.runs.bias import BiasData, measure_bias
from ftk.runs.figures import GENERAL_LOSS, Figures
from ftk.runs.folder import RunFolder
from ftk.runs.forward_size import forward_tokens
from ftk.runs.infilling import Filler
from ftk.runs.long_context import LongContext
from ftk.runs.training_data import InfillingData, Part, TrainingData
from ftk.runs.tuned_model import TunedModel
from ftk.runs.whole_weights import asked_apart
from ftk.runs.without_context import NO_CONTEXT, named_without_context
from ftk.train.shard import gathered, without_backward

if TYPE_CHECKING:
    from accelerate import Accelerator


def check_questions(recipe: Recipe, data: TrainingData) -> None:
    """Find out, before anything is written or learned, that the held-out rows can be asked and judged.

    Raises:
        DataError, RecipeError: they cannot.
    """
    settings = recipe.evaluation
    # Holes are checked as they are read.
    if data.eval is None or not settings.metrics or data.infilling is not None:
        return
    rows = pick_rows(data.eval.conversations, settings.max_rows)
    if not rows:
        raise DataError(
            "no held-out row has a chosen answer, so evaluation.metrics have nothing to judge by. Leave them out, or "
            "hold out rows with good answers",
            place="data.eval",
        )
    for number in sorted({0, *(settings.shots if settings.before else ())}):
        ask(
            data.renderer,
            rows,
            metrics=settings.metrics,
            max_positions=max_positions(load_config(recipe.model)),
            shots=pick_shots(data.train.conversations, number, seed=recipe.seed, without=rows) if number else (),
            by=settings.by,
        )


class Measure:
    """Measures one model on the held-out rows of its recipe."""

    def __init__(
        self,
        recipe: Recipe,
        data: TrainingData,
        tuned: TunedModel,
        folder: RunFolder,
        accelerator: "Accelerator",
        say: Callable[[str], None],
        bias: BiasData | None = None,
    ) -> None:
        self._bias = bias
        self._settings = recipe.evaluation
        self._asks_apart = bool(asked_apart(recipe))
        self._rows = recipe.task.rows
        self._objective = recipe.task.objective(router_loss_weight=tuned.router_loss_weight)
        self._is_compiled = recipe.training.compile
        self._seed = recipe.seed
        self._data = data
        self._tuned = tuned
        self._folder = folder
        self._accelerator = accelerator
        self._say = say
        self._batches = self._held_out_batches(data.eval)
        infilling = data.infilling
        self._left_to_right = self._held_out_batches(infilling.left_to_right if infilling is not None else None)
        self._long_context = LongContext(recipe, data, self._batches, accelerator)

    def losses(self, model: nn.Module) -> dict[str, float]:
        """Figures over all held-out rows, the loss among them; every process must call this.

        Of answers perplexity and token accuracy, of plain text bits a byte besides, of preferences rewards, margin,
        accuracy and log-probabilities.
        """
        with without_backward(model):
            return self._losses(model)

    def before(self, model: nn.Module) -> Figures:
        """The model before it is tuned, as `spread` returned it, also with examples in the prompt.

        It is measured once, however often the run resumes.
        """
        path = self._folder.evaluations / "before.json"
        if path.exists():
            return Figures.load(path)
        if not self._settings.before:
            return Figures()
        return self._everything(model, "before", self._settings.shots, path)

    def after(self, model: nn.Module) -> Figures:
        """The tuned model, as `spread` returned it, asked without examples."""
        return self._everything(model, "after", (0,), self._folder.evaluations / "after.json")

    def forgetting(self, before: Figures, after: Figures) -> str | None:
        """A sentence where the model has forgotten more than the recipe puts up with."""
        if GENERAL_LOSS not in before.metrics:
            return None
        limit = self._settings.max_forgetting
        return forgetting(before.metrics[GENERAL_LOSS], after.metrics[GENERAL_LOSS], max_forgetting=limit)

    def _everything(self, model: nn.Module, when: str, shots: tuple[int, ...], path: Path) -> Figures:
        with gathered(model) if self._asks_apart else without_backward(model):
            figures = self._figures(model, when, shots)
        if self._accelerator.is_main_process:
            figures.save(path)
        self._accelerator.wait_for_everyone()
        return figures

    def _figures(self, model: nn.Module, when: str, shots: tuple[int, ...]) -> Figures:
        # First a call of the whole: `fully_shard` takes what is called first for the module that holds all others.
        general = self._general(model)
        metrics: dict[str, float] = {}
        sample = None
        data = self._data.eval
        if data is not None and self._batches:
            self._say(f"evaluating {when} training")
            metrics |= self._losses(model)
            for number in shots if self._settings.metrics and self._data.infilling is None else ():
                answered, example = self._answers(when, number, data.conversations)
                metrics |= answered
                sample = sample or example
            metrics |= self._without_context(model, when)
        metrics |= self._bias_figures(model, when)
        if self._data.infilling is not None:
            filled, sample = self._infilling(model, when, self._data.infilling)
            metrics |= filled
        metrics |= self._long_context.measure(model)
        if when == "before":
            metrics |= self._long_context.measure_unscaled(model, self._tuned.causal_lm)
        return Figures(metrics | general, sample)

    def _losses(self, model: nn.Module) -> dict[str, float]:
        with self._accelerator.autocast():
            if self._rows == "conversations":
                return dict(loss_metrics(model, self._batches, self._accelerator))
            return dict(objective_metrics(model, self._objective, self._batches, self._accelerator))

    def _answers(
        self, when: str, num_shots: int, rows: Sequence[Conversation], *, suffix: str = ""
    ) -> tuple[dict[str, float], tuple[str, str, str]]:
        """Figures of the answers to `rows`, with `suffix` behind their names, and the first of them."""
        data = self._data
        rows = pick_rows(rows, self._settings.max_rows)
        train_rows = data.train.conversations if num_shots else ()
        shots = pick_shots(train_rows, num_shots, seed=self._seed, without=rows)
        suffix = f"@{num_shots}" if num_shots else suffix
        with self._accelerator.autocast(), self._eagerly():
            answered = evaluate_answers(
                self._tuned.causal_lm,
                data.renderer,
                rows,
                metrics=self._settings.metrics,
                max_new_tokens=self._settings.max_new_tokens,
                pad_token_id=data.pad_token_id,
                shots=shots,
                by=self._settings.by,
                answers_file=self._folder.evaluations / f"answers_{when}{suffix}.jsonl",
                accelerator=self._accelerator,
                tell=self._say,
            )
        first = answered.rows[0]
        question = next(str(turn["content"]) for turn in reversed(rows[0].messages[:-1]) if turn["role"] == "user")
        named = {f"{name}{suffix}": value for name, value in answered.metrics.items()}
        return named, (question, first.reference, first.answer)

    def _eagerly(self) -> AbstractContextManager[object]:
        # Caches grow by a position a token: compiled layers would be compiled again and again.
        return torch.compiler.set_stance("force_eager") if self._is_compiled else nullcontext()

    def _without_context(self, model: nn.Module, when: str) -> dict[str, float]:
        """The same figures of rows with retrieved documents, asked without them; empty where there are none."""
        closed = self._data.closed
        if closed is None:
            return {}
        batches = self._held_out_batches(closed)
        with self._accelerator.autocast():
            figures = {"loss": float(loss_metrics(model, batches, self._accelerator)["loss"])}
        answered: dict[str, float] = {}
        if self._settings.metrics:
            answered, _ = self._answers(when, 0, closed.conversations, suffix=NO_CONTEXT)
        return named_without_context(figures) | answered

    def _bias_figures(self, model: nn.Module, when: str) -> dict[str, float]:
        if self._bias is None:
            return {}
        self._say(f"measuring bias {when} training")
        with self._accelerator.autocast(), self._eagerly():
            return measure_bias(
                self._bias,
                model,
                self._tuned.causal_lm,
                self._data.renderer,
                tokens_per_batch=forward_tokens(self._accelerator.device),
                max_new_tokens=self._settings.max_new_tokens,
                pad_token_id=self._data.pad_token_id,
                file=self._folder.evaluations / f"bias_{when}.jsonl",
                accelerator=self._accelerator,
                tell=self._say,
            )

    def _infilling(
        self, model: nn.Module, when: str, own: InfillingData
    ) -> tuple[dict[str, float], tuple[str, str, str] | None]:
        """How the held-out texts are read left to right, and how the holes in them are filled; one of these."""
        figures: dict[str, float] = {}
        if self._left_to_right:
            with self._accelerator.autocast():
                plain = objective_metrics(model, self._objective, self._left_to_right, self._accelerator)
            figures = {f"left_to_right_{name}": plain[name] for name in ("loss", "bits_per_byte") if name in plain}
        if not own.holes:
            return figures, None
        data, settings = self._data, self._settings
        filler = Filler(
            data.tokenizer, settings.metrics, settings.max_new_tokens, data.pad_token_id, settings.by, self._say
        )
        with self._accelerator.autocast(), self._eagerly():
            answered = filler.fill(
                self._tuned.causal_lm,
                own.holes,
                answers_file=self._folder.evaluations / f"answers_{when}.jsonl",
                accelerator=self._accelerator,
            )
        first = answered.rows[0]
        return figures | dict(answered.metrics), (first.prompt, first.reference, first.answer)

    def _general(self, model: nn.Module) -> dict[str, float]:
        """What is kept of what the model knew; where plain text is learned, in the figures of that."""
        tokenizer, max_length = self._data.tokenizer, self._data.max_length
        batches = general_text_batches(
            tokenizer,
            max_length=max_length,
            rows_per_batch=max(1, forward_tokens(self._accelerator.device) // max_length),
            pad_token_id=self._data.pad_token_id,
        )
        with self._accelerator.autocast():
            loss = float(loss_metrics(model, batches, self._accelerator)["loss"])
        if self._rows != "texts":
            return {GENERAL_LOSS: loss}
        num_tokens = sum(float(batch.weights_BL.sum()) for batch in batches)
        num_bytes = general_text_bytes(tokenizer, max_length=max_length)
        return {
            GENERAL_LOSS: loss,
            "general_perplexity": perplexity(loss),
            "general_bits_per_byte": bits_per_byte(loss * num_tokens, num_bytes),
        }

    def _held_out_batches(self, part: Part | None) -> list[Batch]:
        if part is None:
            return []
        return evaluation_batches(
            part.examples,
            tokens_per_batch=forward_tokens(self._accelerator.device),
            pad_token_id=self._data.pad_token_id,
            process_index=self._accelerator.process_index,
            num_processes=self._accelerator.num_processes,
        )
