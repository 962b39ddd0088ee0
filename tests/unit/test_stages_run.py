"""Which stages of a chain are trained, skipped, resumed or trained anew, with a stand-in for training itself."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ftk.cli.output import Ended
from ftk.cli.relay import relay_stage
from ftk.core.errors import DataError, RecipeError, RunError, SetupError, Stopped
from ftk.recipe.load_stages import load_stages
from ftk.recipe.stages import LoadedChain
from ftk.runs.folder import RunFolder
from ftk.runs.stages import run_stages

CHAIN = """\
model: ftk://tiny
tuning: full
data: {{train: {rows}}}
output: {folder}
stages:
  - id: one
  - id: two
    training: {{epochs: 2}}
  - id: side
    from: one
"""


class Trainer:
    """Does what a run leaves behind, and notes what was asked."""

    def __init__(self, stops_at: str | None = None) -> None:
        self.asked: list[str] = []
        self.models: dict[str, str] = {}
        self.chain: LoadedChain | None = None
        self.stops_at = stops_at

    numbers = itertools.count()

    def __call__(self, id: str, *, folder: str, model: str, answers: Mapping[str, str]) -> dict[str, object]:
        assert self.chain is not None
        self.asked.append(Path(folder).name)
        self.models[id] = model
        run = RunFolder(Path(folder), resumes=False)
        run.path.mkdir(parents=True, exist_ok=True)
        stage = self.chain.stage(id)
        run.begin(stage.resolved(stage.at(folder=folder, model=model, answers=answers)), "", {})
        if id == self.stops_at:
            raise Stopped("stopped by SIGTERM")
        (run.path / "report.json").write_text(json.dumps({"seconds": next(self.numbers)}))
        return {"run_folder": folder}


@pytest.fixture
def chain_file(tmp_path: Path) -> Path:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"question": "a", "answer": "b"}\n')
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN.format(rows=rows, folder=tmp_path / "runs" / "code"))
    return path


def run(chain_file: Path, *overrides: str, trainer: Trainer | None = None, **how: bool) -> tuple[list[str], Any]:
    """The folders that were trained in, and the answer."""
    trainer = trainer or Trainer()
    loaded = load_stages(str(chain_file), overrides)
    assert isinstance(loaded, LoadedChain)
    trainer.chain = loaded
    answer = run_stages(loaded, train=trainer, **how)
    return trainer.asked, answer


def statuses(answer: Any) -> dict[str, str]:
    return {stage["id"]: stage["status"] for stage in answer["stages"]}


def test_each_stage_in_its_folder_from_the_one_before(chain_file: Path, tmp_path: Path) -> None:
    trainer, folder = Trainer(), tmp_path / "runs" / "code"
    asked, answer = run(chain_file, trainer=trainer)
    assert asked == ["one", "two", "side"]
    assert trainer.models == {"one": "ftk://tiny", "two": str(folder / "one"), "side": str(folder / "one")}
    assert answer["model_folder"] == str(folder / "side" / "model")
    again, answer = run(chain_file)
    assert again == []
    assert set(statuses(answer).values()) == {"skipped"}
    with pytest.raises(RecipeError, match="is finished"):
        run(chain_file, resume=True)


def test_a_stopped_chain_goes_on_where_it_was(chain_file: Path) -> None:
    with pytest.raises(Stopped):
        run(chain_file, trainer=Trainer(stops_at="two"))
    asked, answer = run(chain_file, resume=True)
    assert asked == ["two", "side"]
    assert statuses(answer) == {"one": "skipped", "two": "resumed", "side": "trained"}


def test_a_stage_that_outlived_its_chain_is_waited_for(chain_file: Path, tmp_path: Path) -> None:
    """Its chain was killed, and it trains on: another process beside it would take the next folder once it ends."""
    with pytest.raises(Stopped):
        run(chain_file, trainer=Trainer(stops_at="two"))
    trainer, folder = Trainer(), tmp_path / "runs" / "code" / "two"
    with RunFolder(folder, resumes=True).held(), pytest.raises(RecipeError, match=r"a run is under way in .*two"):
        run(chain_file, trainer=trainer)
    assert trainer.asked == []
    (folder / "report.json").write_text("{}")
    assert run(chain_file)[0] == ["side"]


def test_a_changed_stage_is_told_and_those_after_it_are_stale(
    chain_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(chain_file)
    capsys.readouterr()
    # A finished stage of another length is another stage; how often it is saved makes no difference.
    same = ("stages.one.checkpoint.every=5", "stages.one.training.log_every=3")
    assert run(chain_file, *same)[0] == []
    asked, _ = run(chain_file, "stages.one.training.epochs=1")
    assert asked == ["one-2", "two-2", "side-2"]
    told = capsys.readouterr().err
    assert "stage one is not as it was" in told
    assert "training.epochs: 3" in told
    assert "stage two in" in told
    assert "is stale: it started from another one" in told
    # The changed chain is what is complete now.
    assert run(chain_file, "stages.one.training.epochs=1")[0] == []
    with pytest.raises(RecipeError, match=r"is not as it was.*--resume"):
        run(chain_file, "stages.two.training.epochs=7", "stages.one.training.epochs=1", resume=True)
    # Only what depends on it is trained again.
    assert run(chain_file, "stages.one.training.epochs=1", "stages.two.training.epochs=7")[0] == ["two-3"]
    assert sorted(path.name for path in (tmp_path / "runs" / "code").iterdir() if path.is_dir()) == [
        "one",
        "one-2",
        "side",
        "side-2",
        "two",
        "two-2",
        "two-3",
    ]


def test_a_stage_trained_again_in_its_place_makes_later_ones_stale(chain_file: Path, tmp_path: Path) -> None:
    run(chain_file)
    (tmp_path / "runs" / "code" / "one" / "report.json").unlink()
    asked, answer = run(chain_file)
    assert asked == ["one", "two-2", "side-2"]
    assert statuses(answer)["one"] == "resumed"


def test_fresh_takes_the_next_folder(chain_file: Path, tmp_path: Path) -> None:
    run(chain_file)
    trainer = Trainer()
    _, answer = run(chain_file, trainer=trainer, fresh=True)
    assert answer["chain_folder"] == str(tmp_path / "runs" / "code-2")
    assert trainer.models["two"] == str(tmp_path / "runs" / "code-2" / "one")
    # The same command then speaks of the latest.
    assert run(chain_file)[1]["chain_folder"] == str(tmp_path / "runs" / "code-2")


def test_a_folder_of_something_else_is_left_alone(chain_file: Path, tmp_path: Path) -> None:
    other = tmp_path / "runs" / "code"
    other.mkdir(parents=True)
    (other / "notes.txt").write_text("mine")
    _, answer = run(chain_file)
    assert answer["chain_folder"] == f"{other}-2"
    assert [path.name for path in other.iterdir()] == ["notes.txt"]


def test_missing_data_of_a_later_stage_ends_it_before_anything_is_trained(chain_file: Path, tmp_path: Path) -> None:
    trainer = Trainer()
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        run(chain_file, "stages.side.data.train=gone.jsonl", trainer=trainer)
    assert trainer.asked == []
    assert not (tmp_path / "runs").exists()


def test_within_a_group_of_processes_it_is_refused(chain_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(SetupError, match="without torchrun"):
        run(chain_file)


def test_resume_insists(chain_file: Path) -> None:
    with pytest.raises(RecipeError, match="no chain to resume"):
        run(chain_file, resume=True)


def test_stages_with_folders_of_the_same_name_elsewhere_are_told_apart(chain_file: Path, tmp_path: Path) -> None:
    places = [f"stages.{id}.output={tmp_path / name / 'model'}" for id, name in (("one", "first"), ("two", "second"))]
    assert run(chain_file, *places)[0] == ["model", "model", "side"]
    assert run(chain_file, *places)[0] == []


def test_fresh_trains_a_stage_with_a_folder_elsewhere_anew(chain_file: Path, tmp_path: Path) -> None:
    place = f"stages.one.output={tmp_path / 'elsewhere'}"
    run(chain_file, place)
    assert run(chain_file, place, fresh=True)[0] == ["elsewhere-2", "two", "side"]
    assert run(chain_file, place)[0] == []


@pytest.mark.parametrize(("task", "name"), [("sft", "own.jsonl"), ("cpt", "own.txt")])
def test_a_stage_whose_rows_have_changed_is_stale(
    task: str, name: str, chain_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / name
    own.write_text('{"question": "c", "answer": "d"}\n')
    overrides = (f"stages.two.task={task}", f"stages.two.data.train={own}")
    run(chain_file, *overrides)
    own.write_text('{"question": "c", "answer": "e"}\n')
    capsys.readouterr()
    assert run(chain_file, *overrides)[0] == ["two-2"]
    assert "(the files of data.train have changed)" in capsys.readouterr().err
    assert run(chain_file, *overrides)[0] == []


def test_a_chain_whose_first_model_was_made_anew_is_stale(chain_file: Path, tmp_path: Path) -> None:
    start = tmp_path / "start"
    start.mkdir()
    (start / "report.json").write_text("{}")
    override = f"model.id={start}"
    run(chain_file, override)
    assert run(chain_file, override)[0] == []
    (start / "report.json").write_text('{"seconds": 1}')
    assert run(chain_file, override)[0] == ["one-2", "two-2", "side-2"]


def test_a_stage_that_was_killed_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could say nothing itself; how others end, they have said."""
    ends = iter([137, 75])
    monkeypatch.setattr("ftk.train.launch.run_again", lambda *_: next(ends))
    with pytest.raises(RunError, match=r"stage one was ended by signal 9.*goes on from its last checkpoint") as killed:
        relay_stage("one", folder="f", model="m", answers={})
    assert killed.value.answer == {"stage": "one"}
    with pytest.raises(Ended) as stopped:
        relay_stage("one", folder="f", model="m", answers={})
    assert (stopped.value.exit_code, stopped.value.answer) == (75, {"stage": "one"})
