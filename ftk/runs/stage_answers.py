"""A stage that generates: its model answers questions, in order, and goes on where it was stopped."""

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.core.atomic import atomic_write
from ftk.core.errors import DataError, Interrupted, RunError, Stopped
from ftk.core.tell import tell
from ftk.core.types import Conversation, Message
from ftk.data.checks import place_of
from ftk.data.formats import FORMATS
from ftk.data.formats.format import Reading
from ftk.data.load import read_conversations
from ftk.data.render import Renderer, renderer_for
from ftk.data.train_on import last_answer
from ftk.data.write_rows import as_json, writing_rows
from ftk.generation.decode import decode
from ftk.models.load import max_positions
from ftk.recipe.load import LoadedRecipe
from ftk.recipe.schema import Recipe
from ftk.recipe.stage_answers import Generate, answers_file
from ftk.recipe.stages import LoadedStage
from ftk.recipe.yaml_text import write_yaml
from ftk.runs.answers import end_token_ids
from ftk.runs.environment import environment
from ftk.runs.folder import RunFolder
from ftk.runs.out_of_memory import USE_REMEDIES, out_of_memory_told
from ftk.runs.ready_model import ReadyModel, load_ready_model
from ftk.runs.trust import tell_of_code
from ftk.train.signals import stopping_at_once

AT_ONCE = 64
"""Questions that are answered together; what a stop loses at most. Draws depend on it."""
UNFINISHED = "answers.partial.jsonl"


@stopping_at_once()
@out_of_memory_told(USE_REMEDIES)
def write_answers_of(stage: LoadedStage, loaded: LoadedRecipe) -> dict[str, Any]:
    """Answer the questions of a stage's recipe, and write question and answer as rows; what is told of it as JSON.

    Raises:
        RecipeError: the folder cannot be written, or another process writes in it.
        ModelError, DataError: the model or a question cannot be used.
        RunError: no answer has ended.
        Stopped, Interrupted: by a signal; what was answered is kept.
    """
    start, how = time.perf_counter(), stage.settings.generate
    assert how is not None
    asked = _ask(loaded.recipe, how)
    folder = RunFolder(Path(loaded.recipe.output.folder).expanduser(), resumes=False)
    with folder.held():
        resolved = stage.resolved(loaded)
        folder.begin(resolved, write_yaml(resolved), environment())
        partial = _Partial(folder.path / UNFINISHED)
        of_all = f"of {len(asked.questions):,} questions"
        if partial.num_done:
            tell(f"going on after {partial.num_done:,} {of_all}")
        try:
            for first in range(partial.num_done, len(asked.questions), AT_ONCE):
                partial.append(_answered(asked, how, first, seed=loaded.recipe.seed + first))
                tell(f"{partial.num_done:,} {of_all} answered")
        except (KeyboardInterrupt, Stopped) as error:
            kind, by = (Stopped, "SIGTERM") if isinstance(error, Stopped) else (Interrupted, "Ctrl-C")
            done = f"{partial.num_done:,} {of_all} are answered"
            raise kind(f"stopped by {by}: {done}, and the same command goes on from there") from error
        answer = _finish(folder.path, partial.rows(), how) | {"seconds": time.perf_counter() - start}
        atomic_write(folder.path / "report.json", json.dumps(answer, indent=2) + "\n")
        partial.path.unlink()
    return answer


@dataclass(frozen=True)
class _Asked:
    """Questions, and the model that answers them."""

    model: ReadyModel
    renderer: Renderer
    questions: Sequence[Conversation]
    prompts: Sequence[list[int]]
    rooms: Sequence[int]
    """Most tokens that the answer to each may have."""


def _ask(recipe: Recipe, how: Generate) -> _Asked:
    """What is wrong with a question is found before any is answered."""
    questions = read_conversations(recipe.data.train, role="data.train", to_be_answered=True)
    tell_of_code(recipe.model, tell)
    model = load_ready_model(recipe.model, quantization=recipe.quantization)
    settings, positions = recipe.data, max_positions(model.causal_lm.config)
    renderer = renderer_for(
        model.tokenizer, chat_template=settings.chat_template, arguments=settings.template_arguments
    )
    prompts, rooms = [], []
    for question in questions:
        if question.tools:
            raise DataError("the row has tools, and answers are texts alone. Drop the row", place=place_of(question))
        prompts.append(renderer.render_prompt(question))
        room = how.max_new_tokens if positions is None else min(how.max_new_tokens, positions - len(prompts[-1]))
        if room <= 0:
            raise DataError(
                f"the question has {len(prompts[-1])} tokens, and the model {positions} positions. Shorten or drop the "
                "row",
                place=place_of(question),
            )
        rooms.append(room)
    return _Asked(model, renderer, questions, prompts, rooms)


def _answered(asked: _Asked, how: Generate, first: int, *, seed: int) -> list[dict[str, Any]]:
    """Some questions from number `first` on: each as a row with its answer, and why that is of no use, if so."""
    found = decode(
        asked.model.causal_lm,
        asked.prompts[first : first + AT_ONCE],
        max_new_tokens=how.max_new_tokens,
        end_token_ids=end_token_ids(asked.model.causal_lm, asked.renderer),
        pad_token_id=asked.model.pad_token_id,
        temperature=how.temperature,
        top_p=how.top_p,
        seed=seed,
    )
    rows = []
    for number, tokens in enumerate(found, start=first):
        text = asked.model.tokenizer.decode(tokens, skip_special_tokens=True)
        rows.append(_row(asked.questions[number], text, is_cut=_is_cut(tokens, asked.rooms[number])))
    return rows


def _is_cut(tokens: Sequence[int], room: int) -> bool:
    return len(tokens) >= room


def _row(question: Conversation, answer: str, *, is_cut: bool) -> dict[str, Any]:
    """The conversation up to the answer, of whose own answers none is learned, and the answer."""
    before: list[Message] = [
        {**message, "train": False} if message["role"] == "assistant" else message
        for message in question.messages[: last_answer(question)]
    ]
    writer = FORMATS["messages"].writer
    assert writer is not None
    row = writer.write(Reading([*before, {"role": "assistant", "content": answer}], []))
    return {"left_out": "cut" if is_cut else "empty" if not answer.strip() else None, "row": row}


def _finish(folder: Path, rows: Sequence[dict[str, Any]], how: Generate) -> dict[str, Any]:
    """Write the answers that a model can learn from, and say how many these are."""
    kept = [one["row"] for one in rows if one["left_out"] is None]
    num_cut, num_empty = (sum(one["left_out"] == why for one in rows) for why in ("cut", "empty"))
    left_out = f"{num_cut:,} did not end within {how.max_new_tokens} tokens, {num_empty:,} are empty"
    if not kept:
        raise RunError(f"none of {len(rows):,} answers is of use: {left_out}. Raise generate.max_new_tokens")
    path = Path(answers_file(str(folder)))
    with writing_rows(path) as write:
        for number, row in enumerate(kept, start=1):
            write(row, f"{path}:{number}")
    tell(f"{len(kept):,} answers to {len(rows):,} questions are in {path}; {left_out}")
    return {
        "run_folder": str(folder),
        "answers_file": str(path),
        "num_questions": len(rows),
        "num_answers": len(kept),
        "num_cut": num_cut,
        "num_empty": num_empty,
    }


class _Partial:
    """What was answered so far, a JSON object a line; half a portion that a killed process left is cut off."""

    def __init__(self, path: Path) -> None:
        self.path = path
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        self.num_done = sum(line.endswith(b"\n") for line in lines) // AT_ONCE * AT_ONCE
        if lines:
            os.truncate(path, sum(map(len, lines[: self.num_done])))

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(as_json(row) + "\n" for row in rows))
            file.flush()
            os.fsync(file.fileno())
        self.num_done += len(rows)

    def rows(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").split("\n") if line]
