"""From the recipe to the filled hole: what is known by heart comes back letter by letter."""

import json
from pathlib import Path

import pytest
from run_ftk import Ftk

LINE = "        return other\n"


def test_a_line_known_by_heart_fills_its_hole_letter_by_letter(
    tmp_path: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its indentation, line break and end are learned and written, and stand in the answer as they are."""
    monkeypatch.setattr("ftk.evaluation.retention.general_text", lambda: "A few words, in general. ")
    (tmp_path / "code.py").write_text(LINE * 400)
    recipe = tmp_path / "infill.yaml"
    recipe.write_text(
        f"""\
model: ftk://tiny
task: {{name: infill, cut: line, longest_middle: 1, fim_rate: 0.9, spm_rate: 0}}
data: {{train: {tmp_path / "code.py"}, eval: {tmp_path / "code.py"}, max_length: 64}}
tuning: full
training: {{max_steps: 30, batch_size: 8, learning_rate: 3.0e-3, precision: fp32}}
evaluation: {{metrics: [infilling_exact_match, edit_similarity], every: null, max_rows: 8, max_new_tokens: 16}}
checkpoint: {{every: null}}
output: {tmp_path / "run"}
"""
    )
    answer = ftk_json("train", recipe)
    assert answer["exit_code"] == 0, answer["stderr"]
    before, after = answer["evaluation"]["before"], answer["evaluation"]["after"]
    assert before["infilling_exact_match"] < after["infilling_exact_match"] == after["edit_similarity"] == 1.0
    kept = Path(answer["run_folder"]) / "evaluations" / "answers_after.jsonl"
    rows = [json.loads(line) for line in kept.read_text().splitlines()]
    assert [(row["answer"], row["reference"]) for row in rows] == [(LINE, LINE)] * 8
    prefix, suffix = rows[0]["prompt"].removesuffix("<|fim_middle|>").split("<|fim_prefix|>")[1].split("<|fim_suffix|>")
    filled = ftk_json("generate", tmp_path / "run", "--prefix", prefix, "--suffix", suffix)
    assert (filled["text"], filled["finish_reason"]) == (LINE, "stop")
