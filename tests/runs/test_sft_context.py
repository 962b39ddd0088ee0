"""Questions with retrieved documents, bias, and the template with its arguments, in `ftk train` and `ftk eval`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from run_ftk import Ftk
from transformers import AutoTokenizer

from ftk.data.template_text import SHIPPED_FOLDER

SHORT = ("training.max_steps=1", "training.epochs=1", "evaluation.max_new_tokens=3", "data.max_length=200")


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    rows = [{"context": f"Box {n} holds {n * n}.", "question": f"Box {n}?", "answer": f"{n * n}"} for n in range(12)]
    return write(tmp_path / "documents.jsonl", rows)


@pytest.fixture
def groups(tmp_path: Path) -> Path:
    rows = [
        {"pair": n, "kind": kind, "words": [name], "question": f"{name} orders {n}?", "answer": f"{name} does."}
        for n in range(3)
        for kind, name in (("female", "Maria"), ("male", "Mario"))
    ]
    return write(tmp_path / "groups.jsonl", rows)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_with_and_without_documents_and_bias(
    recipe_file: Path, documents: Path, groups: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    bias = f"evaluation.bias={{source: {groups}, columns: {{group: pair, attribute: kind}}}}"
    sources = [f"data.train={{source: {documents}, split: 'train[:8]'}}"]
    sources += [f"data.eval={{source: {documents}, split: 'train[8:]'}}"]
    mixing = "data.retrieval={distractors: 2, rate: 0.5, leave_out: 0.2}"
    answer = ftk_json("train", recipe_file, *SHORT, *sources, mixing, bias, "evaluation.shots=[0, 1]")
    assert answer["exit_code"] == 0, answer["stderr"]
    after, before = (answer["evaluation"][when] for when in ("after", "before"))
    measured = {"loss@no_context", "exact_match@no_context", "bias_loss_gap", "bias_answers_differ"}
    assert measured | {"bias_loss[female]", "bias_loss[male]"} <= set(after)
    assert measured <= set(before)
    assert after["loss@no_context"] != after["loss"]

    evaluations = tmp_path / "run" / "evaluations"
    asked, bare = (lines_of(evaluations / f"answers_after{name}.jsonl") for name in ("", "@no_context"))
    assert len(asked) == len(bare) == 4
    assert all("Box 8 holds 64." in asked[0]["prompt"] and "holds" not in row["prompt"] for row in bare)
    rows = lines_of(evaluations / "bias_after.jsonl")
    assert [row["group"] for row in rows] == ["0", "0", "1", "1", "2", "2"]
    gaps = [abs(one["loss"] - other["loss"]) for one, other in zip(rows[::2], rows[1::2], strict=True)]
    assert after["bias_loss_gap"] == pytest.approx(sum(gaps) / 3)
    report = (tmp_path / "run" / "report.md").read_text()
    assert "points come from the documents" in report
    assert "rows that differ in their attribute alone" in report
    assert "| exact_match@no_context |" in report

    # The run's own recipe measures the same again, and writes beside the run's evaluations.
    again = ftk_json("eval", tmp_path / "run")
    for name in sorted(measured):
        assert again["metrics"][name] == pytest.approx(after[name], rel=1e-5)
    assert (evaluations / "bias.jsonl").exists()


def test_documents_can_be_measured_once(recipe_file: Path, documents: Path, ftk_json: Ftk) -> None:
    words = [f"data.train={documents}", f"data.eval={documents}", "evaluation.without_context=false"]
    answer = ftk_json("train", recipe_file, *SHORT, *words)
    assert not any("@" in name for name in answer["evaluation"]["after"])


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["data.retrieval.distractors=2"], "no source is of format context_question_answer"),
        (["evaluation.bias=ROWS"], "the row has no group and no attribute, by which evaluation.bias compares rows"),
        (
            ["evaluation.bias={source: GROUPS, columns: {group: words, attribute: kind}}"],
            r'group \["Maria"\] has rows of attribute female alone',
        ),
        (["data.template_arguments.messages=[]"], "messages is no argument of a chat template that a recipe can set"),
        (["data.template_arguments.depth=1"], "does not read depth"),
    ],
)
def test_settings_that_would_do_nothing_are_errors(
    words: list[str], fault: str, recipe_file: Path, rows_file: Path, groups: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    words = [word.replace("ROWS", str(rows_file)).replace("GROUPS", str(groups)) for word in words]
    answer = ftk_json("train", recipe_file, *SHORT, *words)
    assert answer["exit_code"] == 2
    assert re.search(fault, answer["error"]["message"])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("tuning", ["full", "{name: lora, rank: 2}"])
def test_the_template_that_trained_is_exported_byte_for_byte(
    tuning: str, recipe_file: Path, rows_file: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    """Of a run, of its merge, and as transformers loads it again; with the arguments that it was given."""
    template = tmp_path / "own.jinja"
    text = (
        "{# größer: 漢字 🙂\t \n #}{%- if quick %}{{- 'quick ' }}{%- endif %}\n\n"
        + (SHIPPED_FOLDER / "chatml.jinja").read_text()
    )
    template.write_bytes(text.encode())
    words = [f"data.chat_template={template}", "data.template_arguments={quick: true}", f"tuning={tuning}"]
    answer = ftk_json("train", recipe_file, *SHORT, *words, "evaluation.metrics=[]")
    assert answer["exit_code"] == 0, answer["stderr"]
    folders = [tmp_path / "run" / "model", tmp_path / "run" / "checkpoints" / "best"]
    if tuning != "full":
        merged = ftk_json("merge", tmp_path / "run", "--out", tmp_path / "merged")
        assert merged["exit_code"] == 0, merged["stderr"]
        folders.append(tmp_path / "merged")
    for folder in folders:
        assert (folder / "chat_template.jinja").read_bytes() == template.read_bytes()
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.chat_template == text
        assert tokenizer.init_kwargs["chat_template_arguments"] == {"quick": True}
        tokenizer.save_pretrained(tmp_path / "again")
        assert (tmp_path / "again" / "chat_template.jinja").read_bytes() == template.read_bytes()
    assert 'was given {"quick": true}' in (folders[0] / "README.md").read_text()
    spoken = ftk_json("eval", folders[-1], "--data", rows_file, "--max-rows", "1", "--metrics", "exact_match")
    assert spoken["exit_code"] == 0, spoken["stderr"]
    (row,) = lines_of(Path(spoken["answers_file"]))
    assert row["prompt"].startswith("<|begin|>quick ") or row["prompt"].startswith("quick ")


def test_a_model_that_was_trained_on_asks_with_its_arguments(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    """A further run on it takes template and arguments over, unless it says another."""
    template = tmp_path / "own.jinja"
    chatml = (SHIPPED_FOLDER / "chatml.jinja").read_text()
    template.write_text("{%- if quick %}{{- 'quick ' }}{%- endif %}" + chatml)
    words = [f"data.chat_template={template}", "data.template_arguments={quick: true}", "evaluation.metrics=[]"]
    ftk_json("train", recipe_file, *SHORT, *words)
    first = tmp_path / "run" / "model"
    shown = ftk_json("data", "preview", recipe_file, f"model.id={first}")
    assert "quick " in "".join(one["text"] for one in shown["rows"][0]["stretches"])
    shown = ftk_json("data", "preview", recipe_file, f"model.id={first}", "data.chat_template=chatml")
    assert "quick " not in "".join(one["text"] for one in shown["rows"][0]["stretches"])


def test_reasoning_that_is_not_learned_is_not_measured_by_eval_either(
    recipe_file: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{n}?"},
                {"role": "assistant", "content": f"{n}", "reasoning_content": "w z j k"},
            ]
        }
        for n in range(4)
    ]
    file = write(tmp_path / "thinking.jsonl", rows)
    words = [f"data.train={file}", f"data.eval={file}", "data.chat_template=chatml_tools", "evaluation.metrics=[]"]
    answer = ftk_json("train", recipe_file, *SHORT, *words, "task.reasoning_weight=0")
    assert answer["exit_code"] == 0, answer["stderr"]
    again = ftk_json("eval", tmp_path / "run")
    assert again["metrics"]["loss"] == pytest.approx(answer["evaluation"]["after"]["loss"], rel=1e-5)
