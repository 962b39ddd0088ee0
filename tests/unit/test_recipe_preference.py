"""What a recipe may say of preferences, and how it is answered where it says something else."""

from pathlib import Path
from typing import Protocol

import pytest

from ftk.core.errors import RecipeError
from ftk.objectives.preference.task import Preference
from ftk.recipe.load import LoadedRecipe, load_recipe

BASE = "model: ftk://tiny\ntask: preference\ndata: {train: pairs.jsonl}\ntraining: {learning_rate: 1e-5}\n"


class Load(Protocol):
    def __call__(self, *overrides: str) -> LoadedRecipe: ...


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    monkeypatch.chdir(tmp_path)
    Path("recipe.yaml").write_text(BASE)
    return lambda *overrides: load_recipe("recipe.yaml", overrides)


def test_preference_is_dpo(load: Load) -> None:
    task = load().recipe.task
    assert isinstance(task, Preference)
    assert (task.loss.name, task.loss.beta, task.rows, task.needs_reference) == ("dpo", 0.1, "pairs", True)
    assert load("task={name: preference, loss: kto}").recipe.task.rows == "unpaired"


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        ([], None),
        (["training.learning_rate=1e-4"], None),
        (["training.learning_rate=2e-4"], "customary with task: preference and tuning: lora is 1e-07 to 0.0001"),
        (["training.learning_rate=2e-5", "tuning=full"], "customary with task: preference and tuning: full"),
        (["training.learning_rate=1e-8"], "barely move"),
        (["training.learning_rate=2e-4", "task=sft"], None),
        (["training.learning_rate=2e-4", "task.loss=orpo"], None),
        (["training.learning_rate=0.1", "training.optimizer=sgd"], None),
    ],
)
def test_advice_on_the_learning_rate(load: Load, overrides: list[str], part: str | None) -> None:
    advice = load(*overrides).advice
    assert advice == [] if part is None else part in advice[0]


def test_advice_on_pairs_for_single_answers(load: Load) -> None:
    kto = load("task={name: preference, loss: kto}")
    assert "takes each pair apart" in kto.advice_on_rows(10, ["unpaired", "ranked"])[0]
    assert kto.advice_on_rows(10, ["unpaired"]) == []
    assert load().advice_on_rows(10, ["pairs"]) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dpo_beta: 0.1", "task.loss.beta"),
        ("rl: dpo", "task"),
        ("training: {loss_type: sigmoid}", "task.loss"),
        ("rpo_alpha: 1.0", "task.sft_weight"),
        ("ref_model: other", "the reference is the model as the run begins"),
        ("precompute_ref_log_probs: true", "always computed once"),
        ("task: dpo", "it is a loss of preference"),
        ("task: {name: preference, loss: sigmoid}", "it is called dpo here"),
        ("task: {name: preference, loss: {name: dpo, beta: 0}}", "task.loss.beta"),
        ("task: {name: preference, loss: {name: dpo, gamma: 1}}", "gamma"),
    ],
)
def test_what_others_call_it_is_answered(tmp_path: Path, text: str, message: str) -> None:
    key = text.split(":", 1)[0]
    kept = [line for line in BASE.splitlines() if not line.startswith(f"{key}:")]
    path = tmp_path / "recipe.yaml"
    path.write_text("\n".join([*kept, text]) + "\n")
    with pytest.raises(RecipeError) as refusal:
        load_recipe(str(path))
    assert message in refusal.value.message


def test_which_answers_are_compared_is_no_matter_of_a_task_that_compares_none(load: Load) -> None:
    assert load("data.train.0.pairs=adjacent").recipe.data.train[0].pairs == "adjacent"
    with pytest.raises(RecipeError, match="task: sft compares none"):
        load("data.train.0.pairs=adjacent", "task=sft")
