"""`ftk data preview` and `ftk data stats` on the model and rows that ship with ftk."""

from pathlib import Path

import pytest

from ftk.cli.data import commands
from ftk.core.errors import DataError, RecipeError


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    file = tmp_path / "recipe.yaml"
    file.write_text("model: ftk://tiny\ndata: {train: ftk://orders/train, eval: ftk://orders/eval}\n")
    return str(file)


def test_preview_is_readable_without_colour(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = commands["preview"](recipe, rows=2)
    told = capsys.readouterr().out
    assert "ftk://orders/train: format prompt_completion" in told
    assert "\nftk://orders/train:1: " in told
    assert '⟦{"customer":' in told
    assert '"}<|im_end|>⟧' in told
    assert "weights 0, 0.1, 1" in told
    assert "\x1b" not in told
    rows = answer["rows"]
    assert len(rows) == 2
    assert [stretch["weight"] for stretch in rows[0]["stretches"]] == [0.0, 0.1, 1.0, 0.1]
    assert sum(stretch["num_tokens"] for stretch in rows[0]["stretches"]) == rows[0]["num_tokens"]


def test_preview_is_coloured_in_a_terminal(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    commands["preview"](recipe, rows=1)
    told = capsys.readouterr().out
    assert "\x1b[1;32m{" in told  # answers are bold green
    assert "⟦" not in told


def test_preview_takes_overrides(recipe: str) -> None:
    answer = commands["preview"](recipe, ["task.prompt_loss_weight=0"], rows=1)
    assert answer["prompt_weight_share"] == 0
    with pytest.raises(DataError, match=r"ftk://orders/train:\d+: the row has .* tokens, more than max_length 50"):
        commands["preview"](recipe, ["data.max_length=50"], rows=1)
    with pytest.raises(RecipeError, match=r"more than the \d+ positions"):
        commands["preview"](recipe, ["data.max_length=999999"], rows=1)


def test_stats_tells_lengths_and_overlap(recipe: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = commands["stats"](recipe, ["data.max_length=100"])
    told = capsys.readouterr().out
    assert "ftk://orders/train: 2,000 rows, format prompt_completion (found from the columns)" in told
    assert "rows are longer than max_length 100 tokens (truncation: error)" in told
    assert "█" in told
    train = answer["train"]
    assert train["num_rows"] == 2000 == sum(number for _, _, number in train["histogram"])
    assert 0 < train["num_too_long"] < 2000
    assert answer["eval"]["num_rows"] == 200
    assert answer["overlap"] == {"num_rows": 0, "num_prompts": 0}


@pytest.fixture
def preferences(recipe: str) -> str:
    Path(recipe).write_text(
        "model: ftk://tiny\ntask: preference\n"
        "data: {train: ftk://orders/preference_train, eval: ftk://orders/preference_eval}\n"
    )
    return recipe


def test_preview_shows_both_sides_of_a_pair(preferences: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = commands["preview"](preferences, rows=2)
    told = capsys.readouterr().out
    assert "ftk://orders/preference_train: format pairs" in told
    assert "weights 0, 1\n── prompt\n⟨" in told
    assert '── chosen\n⟦{"customer":' in told
    assert '── rejected\n⟦{"customer":' in told
    assert "lies on prompts" not in told
    assert [stretch["part"] for stretch in answer["rows"][0]["stretches"]] == [
        "prompt", "chosen", "chosen", "rejected", "rejected",
    ]  # fmt: skip
    answer = commands["preview"](preferences, ["task.loss=kto"], rows=2)
    told = capsys.readouterr().out
    assert "── good completion\n⟦" in told
    assert "── bad completion\n⟦" in told
    assert "aside" not in told


def test_preview_of_a_pair_is_coloured_in_a_terminal(
    preferences: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    commands["preview"](preferences, rows=1)
    assert capsys.readouterr().out.count("\x1b[1;32m{") == 2


def test_stats_tells_of_both_sides(preferences: str, capsys: pytest.CaptureFixture[str]) -> None:
    answer = commands["stats"](preferences)
    told = capsys.readouterr().out
    assert "ftk://orders/preference_train: 800 rows, format pairs (found from the columns)" in told
    assert "800 chosen completions: " in told
    assert "800 rejected completions: " in told
    assert "the chosen completion is the longer one in " in told
    assert 0 < answer["train"]["chosen_longer_share"] < 1
    assert [one["name"] for one in answer["eval"]["completions"]] == ["chosen", "rejected"]
    assert answer["overlap"] == {"num_rows": 0, "num_prompts": 0}
    answer = commands["stats"](preferences, ["task.loss=kto"])
    told = capsys.readouterr().out
    assert "1,600 rows" in told
    assert [one["num_completions"] for one in answer["train"]["completions"]] == [800, 800]
    assert (answer["train"]["chosen_longer_share"], answer["overlap"]["num_rows"]) == (None, 0)
