"""Half of a character, which JSON can spell and no tokenizer reads, is an error with its row wherever rows are read."""

from pathlib import Path

import pytest
from run_ftk import Ftk

HALF = {
    "cpt": '{"text": "A text with a half, \\ud800, in it."}\n',
    "infill": '{"prefix": "a = 1\\n", "suffix": "c = 3\\n", "middle": "b = \'\\ud800\'\\n"}\n',
    "sft": '{"question": "What is it, a\\ud800?", "answer": "It is b."}\n',
}
WHOLE = {
    "cpt": '{"text": "A text with all of its characters, \\ud83d\\ude00."}\n',
    "infill": '{"text": "a = 1\\nb = 2\\nc = 3\\n"}\n',
    "sft": '{"question": "What is it, a\\ud83d\\ude00?", "answer": "It is b."}\n',
}


@pytest.mark.parametrize("task", HALF)
def test_training_refuses_it(task: str, tmp_path: Path, model_folder: Path, ftk_json: Ftk) -> None:
    train, held_out = tmp_path / "train.jsonl", tmp_path / "eval.jsonl"
    # Rows with holes are held out alone.
    train.write_text(WHOLE[task] + ("" if task == "infill" else HALF[task]))
    held_out.write_text(HALF[task] if task == "infill" else WHOLE[task])
    metrics = "[edit_similarity]" if task == "infill" else "[]"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {model_folder}\ntask: {task}\ndata: {{train: {train}, eval: {held_out}}}\ntuning: full\n"
        f"evaluation: {{metrics: {metrics}}}\noutput: {tmp_path / 'run'}\n"
    )
    answer = ftk_json("train", recipe)
    assert answer["exit_code"] == 2
    assert "half of a character" in answer["error"]["message"]
    assert answer["error"]["place"].endswith("eval.jsonl:1" if task == "infill" else "train.jsonl:2")


def test_a_check_with_a_model_finds_it(tmp_path: Path, model_folder: Path, ftk_json: Ftk) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(WHOLE["sft"] + HALF["sft"])
    answer = ftk_json("data", "check", rows, "--model", model_folder)
    found = {one["kind"]: one["rows"] for one in answer["findings"]}
    assert answer["exit_code"] == 0
    assert found["template_failure"] == [2]
