"""`generate:` in a chain's file, and which of its stages are done again: teacher, answers, student."""

import json
from pathlib import Path
from typing import Any

import pytest
from run_ftk import Ftk
from test_stages_recipe import SHARED, chain_of
from test_stages_run import Trainer, run, statuses

from ftk.core.errors import DataError, RecipeError
from ftk.data.load import read_conversations
from ftk.data.settings import Source

STAGES = """\
stages:
  - id: teacher
  - id: answers
    generate: {temperature: 0.5}
    data: {train: questions.jsonl}
  - id: student
    model: ./small
    data: {train: [{source: "ftk://stages/answers", weight: 0.5}, {source: rows.jsonl, weight: 0.5}]}
  - id: next
"""


def test_answers_are_data_of_later_stages(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, SHARED + STAGES)
    teacher, answers, student, after = chain.stages
    assert (answers.start, after.start, answers.merges) == (teacher, student, False)
    assert answers.settings.generate is not None
    assert answers.settings.generate.temperature == 0.5
    file = "runs/code/answers/answers.jsonl"
    assert [source.source for source in student.loaded.recipe.data.train] == [file, "rows.jsonl"]
    assert (student.reads, after.reads) == ({file}, set())
    moved = student.at(folder="x", model="y", answers={file: "runs/code-2/answers-3/answers.jsonl"}).recipe
    assert [source.source for source in moved.data.train] == ["runs/code-2/answers-3/answers.jsonl", "rows.jsonl"]
    # What is said of training is no part of it, and another word of it changes no answer.
    resolved = answers.resolved(answers.loaded)
    assert set(resolved) == {"generate", "model", "data", "quantization", "output", "seed"}
    again = chain_of(tmp_path, chain.as_yaml())
    assert [stage.loaded.recipe for stage in again.stages] == [stage.loaded.recipe for stage in chain.stages]
    assert [stage.reads for stage in again.stages] == [stage.reads for stage in chain.stages]


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("- {id: a, generate: {temperature: -1}}", r"yaml:8: generate.temperature is -1"),
        ("- {id: a, generate: {max_tokens: 3}}", "max_tokens is not a field of generate"),
        ("- {id: a, generate: {}, training: {epochs: 1}}", "training is for training, and stage a generates answers"),
        ("- {id: a, generate: {}, data: {eval: x.jsonl}}", r"data\.eval is for training"),
        ("- {id: a, generate: {}}\n  - {id: b, from: a}", "stage b starts from a, which generates answers"),
        ("- {id: a, generate: {}}\n  - {id: b, data: {train: ftk://stages/aa}}", "no earlier stage aa. There are: a"),
        ("- {id: a}\n  - {id: b, data: {train: ftk://stages/a}}", "ftk://stages/a has no answers: stage a has no gen"),
        ("- {id: a, generate: {}, data: {train: ftk://stages/a}}", "there is no earlier stage a"),
        ("- {id: a, generate: {}, merge: true}", "with the model as it is: leave merge out"),
    ],
)
def test_what_cannot_be_generated_is_refused(tmp_path: Path, stages: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        chain_of(tmp_path, f"{SHARED}stages:\n  {stages}\n")


@pytest.fixture
def chain_file(tmp_path: Path) -> Path:
    rows, path = tmp_path / "rows.jsonl", tmp_path / "chain.yaml"
    rows.write_text('{"question": "a", "answer": "b"}\n')
    (tmp_path / "questions.jsonl").write_text('{"question": "c"}\n')
    text = f"model: ftk://tiny\ntuning: full\ndata: {{train: {rows}}}\noutput: {tmp_path / 'chain'}\n" + STAGES
    path.write_text(
        text.replace("questions.jsonl", str(tmp_path / "questions.jsonl")).replace(" rows.j", f" {rows.parent}/rows.j")
    )
    return path


class Answering(Trainer):
    """Writes an answer where the stage generates."""

    text = "d"

    def __call__(self, id: str, *, folder: str, model: str, **how: Any) -> dict[str, object]:
        done = super().__call__(id, folder=folder, model=model, **how)
        if id == "answers":
            Path(folder, "answers.jsonl").write_text(json.dumps({"question": "c", "answer": self.text}) + "\n")
        elif id == "student":
            assert all(Path(file).is_file() for file in how["answers"].values())
        return done


def test_other_answers_make_the_student_stale(chain_file: Path, tmp_path: Path) -> None:
    asked, answer = run(chain_file, trainer=Answering())
    assert asked == ["teacher", "answers", "student", "next"]
    assert statuses(answer)["answers"] == "answered"
    assert answer["stages"][1]["answers_file"] == str(tmp_path / "chain" / "answers" / "answers.jsonl")
    assert answer["model_folder"] == str(tmp_path / "chain" / "next" / "model")
    assert run(chain_file, trainer=Answering())[0] == []
    # What training says is nothing to the answers; how they are drawn is.
    assert run(chain_file, "stages.answers.generate.temperature=0.7", trainer=Answering())[0] == [
        "answers-2",
        "student-2",
        "next-2",
    ]
    (tmp_path / "questions.jsonl").write_text('{"question": "e"}\n')
    warm = "stages.answers.generate.temperature=0.7"
    assert run(chain_file, warm, trainer=Answering())[0] == ["answers-3", "student-3", "next-3"]
    with (tmp_path / "chain" / "answers-3" / "answers.jsonl").open("a") as file:
        file.write('{"question": "mine", "answer": "more"}\n')
    assert run(chain_file, warm, trainer=Answering())[0] == ["student-4", "next-4"]


def test_other_rows_of_a_student_are_missed_before_the_teacher_trains(chain_file: Path) -> None:
    trainer = Answering()
    with pytest.raises(DataError, match=r"gone\.jsonl"):
        run(chain_file, "stages.student.data.train.1.source=gone.jsonl", trainer=trainer)
    assert trainer.asked == []


@pytest.mark.parametrize(
    "row",
    [
        {"question": "c"},
        {"question": "c", "answer": ""},
        {"question": "c", "answer": "other"},
        {"prompt": "c"},
        {"instruction": "c", "input": ""},
        {"messages": [{"role": "user", "content": "c"}]},
        {"messages": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "other"}]},
    ],
)
def test_questions_need_no_answer(row: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(row) + "\n")
    (question,) = read_conversations([Source(source=str(file))], to_be_answered=True)
    assert [message["role"] for message in question.messages] == ["user", "assistant"]
    assert question.messages[0]["content"] == "c"


def test_show_writes_what_generates(chain_file: Path, ftk_json: Ftk) -> None:
    shown = ftk_json("recipe", "show", chain_file)
    assert shown["recipe"]["stages"][1]["generate"] == {"max_new_tokens": 512, "temperature": 0.5, "top_p": 1.0}
    one = ftk_json("recipe", "show", chain_file, "--stage", "answers")
    assert one["exit_code"] == 2
    assert "no recipe of its own" in one["error"]["message"]
