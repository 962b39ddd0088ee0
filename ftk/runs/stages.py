"""A chain of stages: each trained in its turn from the model of an earlier one, and all of them compared in the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from ftk.core.atomic import atomic_write
from ftk.core.errors import RecipeError, SetupError
from ftk.core.tell import tell
from ftk.recipe.stages import LoadedChain, LoadedStage
from ftk.runs.folder import RunFolder
from ftk.runs.stage_done import Done
from ftk.runs.stage_rows import rows_digest, with_answers
from ftk.runs.stage_state import State, choose_chain_folder, standing
from ftk.train.group import is_in_group
from ftk.train.signals import stopping_at_once


class Train(Protocol):
    """Trains one stage of the chain, in a process of its own; or lets its model answer.

    `answers` are the files of earlier stages' answers, by how the chain calls them.
    """

    def __call__(self, id: str, *, folder: str, model: str, answers: Mapping[str, str]) -> Mapping[str, object]: ...


@stopping_at_once()
def run_stages(chain: LoadedChain, *, resume: bool = False, fresh: bool = False, train: Train) -> dict[str, Any]:
    """Train every stage that is not complete yet, and compare all of them; what `ftk train --json` prints.

    Raises:
        RecipeError: a folder cannot be written, a stage is still trained by another process, or `resume` insists where
            a stage differs or nothing is left to do.
        DataError: the data of a stage is not there.
        SetupError: a launcher has made this process one of a group.
    """
    if is_in_group():
        raise SetupError(
            "a chain of stages starts the processes of each stage itself, and this one is already one of a group. Run "
            "it without torchrun or srun, with --processes; over several machines run each stage by itself: "
            f"ftk recipe show {chain.file} --stage ID > stage.yaml"
        )
    # What a later stage would miss is found out before the first one trains.
    rows = {stage.id: _rows(stage) for stage in chain.stages}
    folder, note = choose_chain_folder(Path(chain.folder).expanduser(), resume=resume, fresh=fresh)
    state = State(folder)
    if note is not None:
        tell(note)
    done: dict[str, Done] = {}
    for number, stage in enumerate(chain.stages, start=1):
        label = f"stage {number} of {len(chain.stages)}, {stage.id}"
        done[stage.id] = _stage(
            stage, label, chain, folder, done, state, rows=rows[stage.id], resume=resume, fresh=fresh, train=train
        )
    if resume and all(one.status == "skipped" for one in done.values()):
        raise RecipeError(f"the chain in {folder} is finished. Leave --resume out", place=str(folder))
    return _finish(chain, folder, list(done.values()))


def _rows(stage: LoadedStage) -> str:
    """What tells the rows that a stage learns from; that the held-out ones are there is found out, too.

    Without answers of earlier stages, which may still be to come.
    """
    recipe = stage.loaded.recipe
    train, held_out = (
        [source for source in sources if source.source not in stage.reads]
        for sources in (recipe.data.train, recipe.data.eval)
    )
    rows_digest(recipe, held_out, role="data.eval")
    return rows_digest(recipe, train, role="data.train")


def _stage(
    stage: LoadedStage,
    label: str,
    chain: LoadedChain,
    folder: Path,
    done: Mapping[str, Done],
    state: State,
    *,
    rows: str,
    resume: bool,
    fresh: bool,
    train: Train,
) -> Done:
    start = done[stage.start.id] if stage.start is not None else None
    model = _model_of(stage, start)
    wanted = _wanted(stage, chain, folder)
    known = {one.stage.answers_file: one.answers_file for one in done.values()}
    answers = {file: known[file] for file in stage.reads}
    rows = with_answers(rows, sorted(answers.values()))
    recipe = stage.at(folder=str(wanted), model=model, answers=answers)
    where = standing(stage, recipe, wanted, state, rows=rows, fresh=fresh)
    if where.status == "unfinished":
        # Where its chain was killed it may still train: then it is not begun a second time, beside itself.
        with RunFolder(where.folder, resumes=True).held():
            where = standing(stage, recipe, wanted, state, rows=rows, fresh=fresh)
    if where.status == "complete":
        tell(f"{label}: complete in {where.folder}, skipped")
        return Done(stage, recipe, where.folder, "skipped", None)
    if where.note is not None:
        if resume:
            raise RecipeError(f"{where.note}. --resume goes on alone: leave it out", place=str(wanted))
        tell(where.note)
    state.begin(stage.id, where.folder, model=model, rows=rows)
    atomic_write(folder / "chain.yaml", chain.as_yaml())
    if start is not None and stage.merges:
        _merge(start, label)
    tell(f"{label}: {'goes on' if where.status == 'unfinished' else 'starts'} in {where.folder}, from {model}")
    answer = train(stage.id, folder=str(where.folder), model=model, answers=answers)
    status = "resumed" if where.status == "unfinished" else "answered" if stage.generates else "trained"
    recipe = stage.at(folder=str(where.folder), model=model, answers=answers)
    return Done(stage, recipe, where.folder, status, answer)


def _wanted(stage: LoadedStage, chain: LoadedChain, folder: Path) -> Path:
    """The stage's folder: in the chain's, which may have a number, unless it names one elsewhere."""
    own = Path(stage.loaded.recipe.output.folder).expanduser()
    return folder / stage.id if own == Path(chain.folder).expanduser() / stage.id else own


def _model_of(stage: LoadedStage, start: Done | None) -> str:
    if start is None:
        return stage.loaded.recipe.model.id
    return str(_merged_folder(start) if stage.merges else start.folder)


def _merged_folder(done: Done) -> Path:
    return done.folder / "merged"


def _merge(done: Done, label: str) -> None:
    """Fold a stage's adapter into its base, once."""
    from ftk.runs.merging.adapters import merge_adapters

    out = _merged_folder(done)
    if out.exists():
        return
    tell(f"{label}: a new adapter begins, so that of {done.stage.id} is folded into its base first, into {out}")
    merge_adapters(
        None,
        [str(done.folder)],
        out=out,
        trust_remote_code=done.recipe.recipe.model.trust_remote_code,
        tell=tell,
    )
    # The stage trains in another process, which needs the accelerator's memory.
    if torch.accelerator.is_available():
        torch.accelerator.empty_cache()


def _finish(chain: LoadedChain, folder: Path, done: list[Done]) -> dict[str, Any]:
    from ftk.runs.stage_table import compare_stages, print_compared

    models = [one for one in done if not one.stage.generates]
    comparison = compare_stages(folder, models) if models else None
    if comparison is not None:
        print_compared(comparison)
    if models:
        print(f"The model is in {models[-1].folder / 'model'}. Try it: ftk chat {models[-1].folder}")
    return {
        "chain_folder": str(folder),
        "model_folder": str(models[-1].folder / "model") if models else None,
        "stages": [one.as_json() for one in done],
        "comparison": [] if comparison is None else comparison.as_json(),
    }
