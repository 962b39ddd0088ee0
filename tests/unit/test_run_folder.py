"""A run's folder: an unfinished run goes on, anything else is left alone."""

import json
from pathlib import Path

import pytest

from ftk.core.errors import RecipeError
from ftk.runs.folder import choose_folder

RECIPE = {"model": {"id": "m"}, "training": {"epochs": 3, "learning_rate": 1e-3}, "output": {"folder": "runs/a"}}


def make_run(path: Path, recipe: object = RECIPE, *, finished: bool) -> None:
    path.mkdir(parents=True)
    (path / "recipe.json").write_text(json.dumps(recipe))
    if finished:
        (path / "report.json").write_text("{}")


def test_a_new_folder(tmp_path: Path) -> None:
    choice = choose_folder(tmp_path / "runs" / "a", RECIPE)
    assert (choice.path, choice.resumes, choice.note) == (tmp_path / "runs" / "a", False, None)
    assert list(tmp_path.iterdir()) == []


def test_an_unfinished_run_goes_on(tmp_path: Path) -> None:
    make_run(tmp_path / "a", finished=False)
    choice = choose_folder(tmp_path / "a", RECIPE)
    assert (choice.path, choice.resumes) == (tmp_path / "a", True)


def test_more_epochs_may_be_asked_for(tmp_path: Path) -> None:
    make_run(tmp_path / "a", finished=False)
    longer = {**RECIPE, "training": {"epochs": 5, "learning_rate": 1e-3}}
    assert choose_folder(tmp_path / "a", longer).resumes


def test_another_recipe_takes_the_next_number(tmp_path: Path) -> None:
    make_run(tmp_path / "a", finished=False)
    other = {**RECIPE, "training": {"epochs": 3, "learning_rate": 2e-3}}
    choice = choose_folder(tmp_path / "a", other)
    assert (choice.path, choice.resumes) == (tmp_path / "a-2", False)
    assert "holds another run" in str(choice.note)


def test_insisting_shows_the_difference(tmp_path: Path) -> None:
    make_run(tmp_path / "a", finished=False)
    other = {**RECIPE, "training": {"epochs": 3, "learning_rate": 2e-3}}
    with pytest.raises(RecipeError, match=r"training\.learning_rate: 0\.001 then, 0\.002 now"):
        choose_folder(tmp_path / "a", other, resume=True)


def test_a_finished_run_is_left_alone(tmp_path: Path) -> None:
    make_run(tmp_path / "a", finished=True)
    make_run(tmp_path / "a-2", finished=True)
    choice = choose_folder(tmp_path / "a", RECIPE)
    assert (choice.path, choice.resumes) == (tmp_path / "a-3", False)


def test_the_latest_number_goes_on(tmp_path: Path) -> None:
    make_run(tmp_path / "a", finished=True)
    make_run(tmp_path / "a-2", finished=False)
    assert choose_folder(tmp_path / "a", RECIPE).path == tmp_path / "a-2"


def test_fresh_leaves_an_unfinished_run(tmp_path: Path) -> None:
    make_run(tmp_path / "a", finished=False)
    assert choose_folder(tmp_path / "a", RECIPE, fresh=True).path == tmp_path / "a-2"


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("mine")
    choice = choose_folder(tmp_path / "a", RECIPE)
    assert choice.path == tmp_path / "a-2"
    assert "not an ftk run" in str(choice.note)


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    assert choose_folder(tmp_path / "a", RECIPE).path == tmp_path / "a"


def test_nothing_to_resume(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="no run to resume"):
        choose_folder(tmp_path / "a", RECIPE, resume=True)


def test_a_file_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RecipeError, match="is a file"):
        choose_folder(tmp_path / "runs" / "a", RECIPE)
