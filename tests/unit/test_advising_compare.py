"""Methods and values side by side."""

import pytest
from run_ftk import Ftk

from ftk.core.errors import RecipeError
from ftk.runs.advising.compare import parse_sweep


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("sequence_length=1k..8k", (1000, 2000, 4000, 8000)),
        ("sequence-length=512..1500", (512, 1024, 1500)),
        ("rank=64,8,16", (8, 16, 64)),
        ("batch_size=1..1", (1,)),
    ],
)
def test_sweeps(text, values):
    assert parse_sweep(text).values == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seq=1..2", "is no sweep"),
        ("rank", "is no sweep"),
        ("rank=8..4", "runs backwards"),
        ("rank=a", "does not say a number"),
        ("rank=0", "not above zero"),
        ("rank=" + ",".join(map(str, range(1, 40))), "more than the 32"),
    ],
)
def test_sweeps_that_do_not_read(text, message):
    with pytest.raises(RecipeError, match=message):
        parse_sweep(text)


def test_methods_over_lengths(ftk_json: Ftk, tmp_path):
    """Every combination, each with its own figures: more tokens take more, and quantized weights less."""
    picture = tmp_path / "memory.png"
    answer = ftk_json(
        *("estimate-memory", "--model", "ftk://tiny", "--compare", "full,lora,qlora"),
        *("--sweep", "sequence_length=64..256", "--picture", picture),
    )
    assert answer["exit_code"] == 0
    cells = {(cell["tuning"], cell["sequence_length"]): cell for cell in answer["cells"]}
    assert len(cells) == 9
    for method in ("full", "lora", "qlora"):
        totals = [cells[method, length]["total_bytes"] for length in (64, 128, 256)]
        assert totals == sorted(set(totals))
    assert cells["qlora", 64]["weights_bytes"] < cells["lora", 64]["weights_bytes"] < cells["full", 64]["weights_bytes"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_methods_alone(ftk_json: Ftk, tmp_path):
    picture = tmp_path / "memory.png"
    answer = ftk_json("estimate-memory", "--model", "ftk://tiny", "--compare", "lora", "--picture", picture)
    assert [cell["tuning"] for cell in answer["cells"]] == ["lora"]
    assert picture.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--compare", "full,ia3"), "'ia3' is not compared"),
        (("--compare", "full", "--fit", "24GB"), "ask for one of them"),
        (("--compare", "full", "--picture", "memory.jpg"), "expected a .png"),
        (("--sweep", "sequence_length=1k..1M"), "positions"),
    ],
)
def test_bad_input_is_one_message(ftk_json: Ftk, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = ftk_json("estimate-memory", "--model", "ftk://tiny", *words)
    assert answer["exit_code"] == 2
    assert message in answer["error"]["message"]
    assert not list(tmp_path.iterdir())
