"""`ftk data check` looks at what a limited source gives, and at nothing beyond."""

from pathlib import Path

import pytest
from run_ftk import Ftk


@pytest.mark.parametrize(("limit", "num_rows"), [("3", 3), ("1 tokens", 1), ("40 tokens", 2), ("null", 9)])
def test_a_limited_source_is_checked_up_to_its_limit(
    limit: str, num_rows: int, model_folder: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    texts = tmp_path / "texts.txt"
    # Of twenty to forty tokens each: forty tokens end within the second.
    texts.write_text("\n\n".join(f"Document {n}: the cat sat on the mat, and the dog by the door." for n in range(9)))
    recipe = tmp_path / "recipe.yaml"
    source = f'{{source: {texts}, separator: "\\n\\n", limit: {limit}}}'
    recipe.write_text(f"model: {model_folder}\ntask: cpt\ndata: {{train: {source}, max_length: 64}}\n")
    answer = ftk_json("data", "check", recipe)
    assert answer["exit_code"] == 0, answer["stderr"]
    assert answer["num_rows"] == {"train": num_rows}
