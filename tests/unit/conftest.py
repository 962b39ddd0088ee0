"""What several files of tests of single parts begin with."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from check_stand_in import Check, Row

from ftk.core.errors import RecipeError
from ftk.recipe.load import LoadedRecipe, load_recipe
from ftk.runs.check_data import DataReport, check_data
from ftk.runs.check_plan import CheckRequest


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_and_load(text: str, *overrides: str, env: dict[str, str] | None = None) -> LoadedRecipe:
        Path("recipe.yaml").write_text(text)
        return load_recipe("recipe.yaml", overrides, environment=env or {})

    return write_and_load


@pytest.fixture
def refusal(load):
    def lines(text: str, *overrides: str, env: dict[str, str] | None = None) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text, *overrides, env=env)
        return str(caught.value).splitlines()

    return lines


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Sequence[Row]], str]:
    def write(name: str, rows: Sequence[Row]) -> str:
        path = tmp_path / name
        path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def check(write: Callable[[str, Sequence[Row]], str]) -> Check:
    """Check rows as a data file without a model."""

    def check(rows: Sequence[Row], **request: Any) -> DataReport:
        return check_data(CheckRequest(target=write("rows.jsonl", rows), **request), tell=print)

    return check
