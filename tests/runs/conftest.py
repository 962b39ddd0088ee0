"""What several files of tests of runs begin with."""

from pathlib import Path

import pytest
from adapter_files import make_adapter
from merge_models import write_model
from preference_rows import PAIRS, without_dropout, write_recipe, write_rows
from run_ftk import Ftk


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with models a and b of one family."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "a", 1)
    write_model(tmp_path / "b", 2)
    return tmp_path


@pytest.fixture
def merge(ftk_json: Ftk):
    def run(text: str, *words: str):
        Path("merge.yaml").write_text(text)
        return ftk_json("merge", "merge.yaml", "--out", "out", *words)

    return run


@pytest.fixture
def refusal(merge, here: Path):
    def run(text: str, *words: str) -> str:
        before = sorted(here.iterdir())
        answer = merge(text, *words)
        assert answer["exit_code"] == 2, answer
        after = sorted(path for path in here.iterdir() if path.name != "merge.yaml")
        assert after == [path for path in before if path.name != "merge.yaml"], "something was written"
        return str(answer["error"]["message"])

    return run


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("FTK_CACHE", str(folder))
    return folder


@pytest.fixture
def model(model_folder: Path, tmp_path: Path) -> Path:
    return without_dropout(model_folder, tmp_path / "no_dropout")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "pairs.jsonl", PAIRS)


@pytest.fixture
def recipe(model: Path, pairs: Path, tmp_path: Path) -> Path:
    return write_recipe(tmp_path / "recipe.yaml", model=model, rows=pairs, output=tmp_path / "run")


@pytest.fixture
def adapter(model_folder: Path, tmp_path: Path) -> Path:
    return make_adapter(model_folder, tmp_path / "adapter")
