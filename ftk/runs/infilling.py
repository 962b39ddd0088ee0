"""Infilling as the recipe asks for it: tokens, holes held out, and how a model fills them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk.data.holes import Hole, read_holes
from ftk.data.infill import Infilling
from ftk.data.infill_format import ADDED, add_format, find_format, set_apart
from ftk.data.infill_prompt import InfillPrompts
from ftk.data.infill_rows import NUM_MARKS
from ftk.evaluation.answers import JudgedRow, averages, check_metrics, groups_by, judge
from ftk.generation.batch import Decoder
from ftk.objectives.infill import Infill
from ftk.recipe.schema import Recipe
from ftk.runs.answers import Answered, generate, named_end_token_ids, pick_rows, write_answers

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn
    from transformers import PreTrainedTokenizerBase

    from ftk.evaluation.metrics import Metric


def infilling_of(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase") -> tuple[Infilling, tuple[str, ...]]:
    """How the recipe's texts are rearranged, and the tokens that the tokenizer has got for it."""
    task = recipe.task
    assert isinstance(task, Infill)
    added: tuple[str, ...] = ()
    found = find_format(tokenizer)
    if found is None:
        found, added = add_format(tokenizer)
    set_apart(tokenizer, found)
    how = Infilling(
        found,
        task.fim_rate,
        task.spm_rate,
        task.cut,
        task.level,
        seed=recipe.seed,
        longest=task.longest_middle,
        context_weight=task.context_loss_weight,
    )
    return how, added


def added_line(tokens: Sequence[str]) -> str:
    """What a person should know of new tokens."""
    return (
        f"token  the tokenizer has none for infilling: {', '.join(tokens)} are added, as {ADDED.name} names them; "
        "their embeddings start at the mean of all, are trained, and are saved with the model"
    )


def held_out_holes(recipe: Recipe, tokenizer: "PreTrainedTokenizerBase", *, max_length: int) -> list[Hole]:
    """The holes that metrics are judged on; none where the recipe asks for no metric.

    Raises:
        DataError: a row does not read, a metric cannot judge it, or there is no hole.
    """
    settings = recipe.evaluation
    if not recipe.data.eval or not settings.metrics:
        return []
    holes = read_holes(recipe.data.eval, tokenizer, context_tokens=max_length - 1 - NUM_MARKS, seed=recipe.seed)
    some = pick_rows(holes, settings.max_rows)
    columns = [hole.columns for hole in some]
    check_metrics(settings.metrics, [hole.middle for hole in some], columns)
    if settings.by is not None:
        groups_by(settings.by, columns)
    return some


@dataclass(frozen=True)
class Filler:
    """Has a model fill holes, and judges what it writes."""

    tokenizer: "PreTrainedTokenizerBase"
    metrics: "Sequence[Metric]"
    max_new_tokens: int
    pad_token_id: int
    by: str | None = None
    tell: Callable[[str], None] = lambda sentence: None

    def fill(
        self,
        causal_lm: "nn.Module",
        holes: Sequence[Hole],
        *,
        answers_file: Path | None = None,
        accelerator: "Accelerator | None" = None,
    ) -> Answered:
        """Fill every hole with the most probable tokens, prefix first, and judge that by what was there.

        Raises:
            DataError: the tokenizer has no infilling tokens.
            RunError: a metric's function fails.
        """
        start = time.perf_counter()
        prompts = InfillPrompts(self.tokenizer)
        positions = Decoder(causal_lm).max_positions
        room = None if positions is None else max(8, positions - self.max_new_tokens)
        rows = [prompts.prompt(hole.prefix, hole.suffix, room=room) for hole in holes]
        tokens = generate(
            causal_lm,
            rows,
            accelerator=accelerator,
            max_new_tokens=self.max_new_tokens,
            end_token_ids=hole_end_token_ids(causal_lm, self.tokenizer, prompts),
            pad_token_id=self.pad_token_id,
            tell=self.tell,
        )
        middles = [prompts.middle(answer) for answer in tokens]
        columns = [hole.columns for hole in holes]
        values = judge(self.metrics, middles, [hole.middle for hole in holes], columns)
        num_cut = sum(len(answer) >= self.max_new_tokens for answer in tokens)
        if num_cut:
            self.tell(f"{num_cut} of {len(holes)} middles did not end within {self.max_new_tokens} tokens")
        judged = tuple(
            JudgedRow(
                source=hole.source,
                row=hole.row,
                prompt=self.tokenizer.decode(rows[number]),
                answer=middles[number],
                reference=hole.middle,
                is_cut=len(tokens[number]) >= self.max_new_tokens,
                metrics={name: column[number] for name, column in values.items()},
            )
            for number, hole in enumerate(holes)
        )
        groups = groups_by(self.by, columns) if self.by is not None else None
        answered = Answered(
            averages(values, groups), len(holes), time.perf_counter() - start, answers_file, judged, num_shots=0
        )
        if answers_file is not None and (accelerator is None or accelerator.is_main_process):
            write_answers(answers_file, [answered])
        return answered


def hole_end_token_ids(causal_lm: Any, tokenizer: "PreTrainedTokenizerBase", prompts: InfillPrompts) -> tuple[int, ...]:
    """Tokens at which a middle ends: those of the format, and those at which any text of the model ends."""
    return tuple(dict.fromkeys([*prompts.format.stops, *named_end_token_ids(causal_lm, tokenizer)]))
