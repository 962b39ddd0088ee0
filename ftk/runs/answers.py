"""Answers of a model to held-out rows: prompts, generation, judgement, and the file that keeps them."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ftk.core.atomic import atomic_write
from ftk.core.errors import DataError, RecipeError
from ftk.core.types import Conversation
from ftk.data.checks import place_of
from ftk.data.render import Renderer
from ftk.evaluation.answers import JudgedRow, averages, check_metrics, groups_by, judge
from ftk.evaluation.metrics import Metric
from ftk.generation.batch import Decoder
from ftk.generation.decode import decode

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn
    from transformers import PreTrainedTokenizerBase

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Answered:
    """How a model answered some rows."""

    metrics: Mapping[str, float]
    """Mean over rows by metric name, `metric[column=value]` for groups."""
    num_examples: int
    seconds: float
    answers_file: Path | None
    rows: tuple[JudgedRow, ...]
    num_shots: int

    def lines(self) -> list[str]:
        """The rows as JSON, a line each."""
        return [row.as_json(self.num_shots) for row in self.rows]


def evaluate_answers(
    causal_lm: "nn.Module",
    renderer: Renderer,
    rows: Sequence[Conversation],
    *,
    metrics: Sequence[Metric],
    max_new_tokens: int,
    pad_token_id: int,
    shots: Sequence[Conversation] = (),
    by: str | None = None,
    answers_file: Path | None = None,
    accelerator: "Accelerator | None" = None,
    split: bool = True,
    batch_size: int | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
) -> Answered:
    """Ask a model every row's last question, and judge its greedy answers by the row's own.

    Args:
        rows: conversations that end in an answer, which is the reference.
        shots: examples shown before each question.
        by: a column; metrics are given for each of its values too.
        answers_file: where all rows are written, a JSON object a line, atomically and by the main process.
        accelerator: the group of processes; rows are dealt over it and answers gathered, so that every process gets
            the same result.
        split: false where weights are sharded: every process then decodes all rows, in step with the others.
        tell: takes sentences for a person.

    Raises:
        DataError: a row has no answer, its prompt leaves no position for one, or a metric cannot judge it.
        RecipeError: a metric's function does not exist.
        RunError: a metric's function fails.
    """
    start = time.perf_counter()
    references = [renderer.reference(row) for row in rows]
    columns = [row.columns for row in rows]
    groups = groups_by(by, columns) if by is not None else None
    positions = Decoder(causal_lm).max_positions
    prompts = ask(renderer, rows, metrics=metrics, max_positions=positions, shots=shots, by=by)
    tokens = generate(
        causal_lm,
        prompts,
        accelerator=accelerator if split else None,
        max_new_tokens=max_new_tokens,
        end_token_ids=end_token_ids(causal_lm, renderer),
        pad_token_id=pad_token_id,
        batch_size=batch_size,
        tell=tell,
    )
    answers = [renderer.tokenizer.decode(answer, skip_special_tokens=True) for answer in tokens]
    values = judge(metrics, answers, references, columns)
    num_cut = sum(len(answer) >= max_new_tokens for answer in tokens)
    if num_cut:
        tell(f"{num_cut} of {len(rows)} answers did not end within {max_new_tokens} tokens")
    judged = tuple(
        JudgedRow(
            source=row.source,
            row=row.row,
            prompt=renderer.tokenizer.decode(prompts[number]),
            answer=answers[number],
            reference=references[number],
            is_cut=len(tokens[number]) >= max_new_tokens,
            metrics={name: column[number] for name, column in values.items()},
        )
        for number, row in enumerate(rows)
    )
    answered = Answered(
        metrics=averages(values, groups),
        num_examples=len(rows),
        seconds=time.perf_counter() - start,
        answers_file=answers_file,
        rows=judged,
        num_shots=len(shots),
    )
    if answers_file is not None and (accelerator is None or accelerator.is_main_process):
        write_answers(answers_file, [answered])
    return answered


def ask(
    renderer: Renderer,
    rows: Sequence[Conversation],
    *,
    metrics: Sequence[Metric],
    max_positions: int | None,
    shots: Sequence[Conversation] = (),
    by: str | None = None,
) -> list[list[int]]:
    """The prompts of all rows, once it is known that their answers can be judged. Needs no model.

    Raises:
        DataError: a row has no answer, its prompt leaves no position for one, or a metric cannot judge it.
        RecipeError: a metric's function does not exist.
    """
    columns = [row.columns for row in rows]
    if by is not None:
        groups_by(by, columns)
    check_metrics(metrics, [renderer.reference(row) for row in rows], columns)
    prompts = [renderer.render_prompt(row, shots=shots) for row in rows]
    _check_lengths(prompts, rows, max_positions, num_shots=len(shots))
    return prompts


def write_answers(path: Path, answered: Sequence[Answered]) -> None:
    """All rows of some evaluations, a JSON object a line.

    Raises:
        RecipeError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, "".join(f"{line}\n" for one in answered for line in one.lines()))
    except OSError as error:
        raise RecipeError(f"the answers cannot be written: {error.strerror or error}", place=str(path)) from error


def pick_rows(rows: Sequence[_Row], max_rows: int | None) -> list[_Row]:
    """At most `max_rows` rows, evenly spread over all, since files are often ordered by kind."""
    if max_rows is None or len(rows) <= max_rows:
        return list(rows)
    return [rows[place * len(rows) // max_rows] for place in range(max_rows)]


def pick_shots(
    rows: Sequence[Conversation], num: int, *, seed: int, without: Sequence[Conversation] = ()
) -> list[Conversation]:
    """`num` rows to show as examples, drawn by the seed; none that is asked about, which would give its answer away.

    Raises:
        DataError: there are not so many rows.
    """
    asked = {_question(row) for row in without}
    places = list(range(len(rows)))
    random.Random(seed).shuffle(places)
    chosen: list[Conversation] = []
    for place in places:
        if len(chosen) == num:
            break
        if _question(rows[place]) not in asked:
            chosen.append(rows[place])
    if len(chosen) < num:
        raise DataError(f"{num} examples were asked for, and only {len(chosen)} training rows are not evaluated too")
    return chosen


def end_token_ids(causal_lm: Any, renderer: Renderer) -> tuple[int, ...]:
    """Tokens at which an answer ends: the template's, and those that the model's own settings name."""
    return tuple(dict.fromkeys([*renderer.end_token_ids, *named_end_token_ids(causal_lm, renderer.tokenizer)]))


def named_end_token_ids(causal_lm: Any, tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """End tokens that the tokenizer and the model's generation settings name."""
    named = causal_lm.generation_config.eos_token_id
    ends = [tokenizer.eos_token_id, *(named if isinstance(named, list | tuple) else [named])]
    return tuple(dict.fromkeys(int(token_id) for token_id in ends if token_id is not None))


def generate(
    causal_lm: "nn.Module", prompts: Sequence[Sequence[int]], *, accelerator: "Accelerator | None", **settings: Any
) -> list[list[int]]:
    """`decode` over the group of processes: prompts are dealt and answers gathered, so that every process gets all."""
    if accelerator is None or accelerator.num_processes == 1:
        return decode(causal_lm, prompts, **settings)
    from accelerate.utils import gather_object

    own = range(accelerator.process_index, len(prompts), accelerator.num_processes)
    found = decode(causal_lm, [prompts[number] for number in own], **settings)
    answers: list[list[int]] = [[] for _ in prompts]
    for number, answer in gather_object(list(zip(own, found, strict=True))):
        answers[number] = answer
    return answers


def _check_lengths(
    prompts: Sequence[Sequence[int]], rows: Sequence[Conversation], positions: int | None, *, num_shots: int
) -> None:
    longest = max(range(len(prompts)), key=lambda number: len(prompts[number]))
    if positions is not None and len(prompts[longest]) >= positions:
        shown = f" with {num_shots} examples" if num_shots else ""
        fewer = "Show fewer examples" if num_shots else "Shorten or drop the row"
        raise DataError(
            f"the prompt{shown} has {len(prompts[longest])} tokens, and the model {positions} positions. {fewer}",
            place=place_of(rows[longest]),
        )


def _question(row: Conversation) -> str:
    """What tells rows apart that ask the same."""
    return repr(
        [(message["role"], message.get("content")) for message in row.messages if message["role"] != "assistant"]
    )
