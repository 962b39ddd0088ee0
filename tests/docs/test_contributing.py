"""The worked example of CONTRIBUTING.md is true: its code runs, joins the union by one line, and does what it says."""

import re
from pathlib import Path
from types import ModuleType
from typing import Annotated

import pytest
from pydantic import TypeAdapter

from ftk.core.config import ByName
from ftk.evaluation.metrics.exact_match import ExactMatch

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    module = ModuleType("edit_similarity")
    exec(compile(code[1], "CONTRIBUTING.md", "exec", dont_inherit=True), module.__dict__)
    return module


def test_the_fixed_point_that_the_guide_gives(example: ModuleType) -> None:
    assert example.edit_similarity("kitten", "sitting") == pytest.approx(1 - 3 / 7)
    assert example.edit_similarity("", "") == 1
    assert example.edit_similarity("abc", "") == 0


def test_one_line_in_the_union_is_enough(example: ModuleType) -> None:
    union = TypeAdapter(Annotated[ExactMatch | example.EditSimilarity, ByName()])
    metric = union.validate_python("edit_similarity")
    assert metric.score(["kitten"], ["sitting"], [{}]) == {"edit_similarity": [pytest.approx(4 / 7)]}


def test_the_layers_are_those_of_the_contract() -> None:
    """The drawing in the guide and import-linter's contract name the same layers in the same order."""
    import tomllib

    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    drawn = re.search(r"^cli .*core$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert drawn is not None
    in_guide = [set(re.findall(r"\w+", layer)) for layer in drawn[0].split("→")]
    in_contract = [set(re.findall(r"ftk\.(\w+)", layer)) for layer in contract["layers"]]
    assert in_guide == in_contract
