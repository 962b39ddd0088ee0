"""Teacher, answers, student: end to end, stopped and gone on with, to the same answers."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from run_ftk import NUM_ROWS, start_ftk

from ftk.recipe.load_stages import load_stages
from ftk.recipe.stages import LoadedChain
from ftk.runs import stage_answers
from ftk.runs.stage_answers import write_answers_of

CHAIN = """\
model: {model}
data: {{train: {rows}, eval: {rows}, max_length: 256}}
tuning: full
training: {{max_steps: 2, batch_size: 4, learning_rate: 1.0e-2, precision: fp32, schedule: constant}}
evaluation: {{before: false, metrics: []}}
output: {folder}
stages:
  - id: teacher
  - id: answers
    generate: {{max_new_tokens: 6, temperature: 0.8}}
    data: {{train: {questions}}}
  - id: student
    model: {model}
    data: {{train: ftk://stages/answers}}
"""


@pytest.fixture
def chain_file(tmp_path: Path, model_folder: Path, rows_file: Path) -> Path:
    questions = tmp_path / "questions.jsonl"
    asked = [{"question": json.loads(line)["question"]} for line in rows_file.read_text().splitlines()]
    questions.write_text("".join(json.dumps(row) + "\n" for row in asked))
    path = tmp_path / "chain.yaml"
    path.write_text(CHAIN.format(model=model_folder, rows=rows_file, questions=questions, folder=tmp_path / "chain"))
    return path


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_student_learns_what_its_teacher_says(chain_file: Path, tmp_path: Path) -> None:
    # Whatever a model of random weights says must count.
    chain_file.write_text(chain_file.read_text().replace("max_new_tokens: 6", "max_new_tokens: 200"))
    process = start_ftk("train", chain_file, "--json")
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    answer = json.loads(out.splitlines()[-1])
    assert [stage["status"] for stage in answer["stages"]] == ["trained", "answered", "trained"]
    run = answer["stages"][1]["run"]
    assert run["num_questions"] == NUM_ROWS
    written = lines(Path(run["answers_file"]))
    assert len(written) == run["num_answers"] == NUM_ROWS - run["num_cut"] - run["num_empty"] > 0
    questions = {row["question"] for row in lines(tmp_path / "questions.jsonl")}
    assert all(row["messages"][0]["content"] in questions for row in written)
    report = json.loads((tmp_path / "chain" / "student" / "recipe.json").read_text())
    assert report["data"]["train"][0]["source"] == run["answers_file"]
    # The table is of models.
    assert {one["model"] for one in answer["comparison"]} == {"base", "teacher", "student"}


def test_answers_go_on_where_they_were_stopped(
    chain_file: Path, tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_answers, "AT_ONCE", 4)
    chain = load_stages(str(chain_file))
    assert isinstance(chain, LoadedChain)
    stage = chain.stage("answers")

    def write(name: str) -> Path:
        write_answers_of(stage, stage.at(folder=str(tmp_path / name), model=str(model_folder), answers={}))
        return tmp_path / name / "answers.jsonl"

    # Of random weights none may end: all that is written counts.
    monkeypatch.setattr(stage_answers, "_is_cut", lambda *_: False)
    whole = write("whole").read_bytes()
    assert len(whole.splitlines()) == NUM_ROWS
    decoded, decode = [], stage_answers.decode

    def stopping(model: object, prompts: list[list[int]], **how: Any) -> object:
        decoded.append(len(prompts))
        if len(decoded) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return decode(model, prompts, **how)

    monkeypatch.setattr(stage_answers, "decode", stopping)
    with pytest.raises(stage_answers.Stopped, match=f"4 of {NUM_ROWS} questions are answered"):
        write("parts")
    assert not (tmp_path / "parts" / "answers.jsonl").exists()
    # As a process that was killed in the middle of writing leaves it.
    with (tmp_path / "parts" / stage_answers.UNFINISHED).open("a") as file:
        file.write('{"left_out": null, "row": {}}\n{"left_o')
    assert write("parts").read_bytes() == whole
    assert decoded == [4, 4, 4, 4]
    assert not (tmp_path / "parts" / stage_answers.UNFINISHED).exists()
