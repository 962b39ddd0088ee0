"""What makes a recipe fit: factors by hand, plans that hold when they are pasted, files that load to the same."""

from pathlib import Path

import pytest
from advising_recipe import asked, factor, total, write_recipe
from run_ftk import Ftk

from ftk.core.errors import RecipeError
from ftk.recipe.load import load_recipe
from ftk.runs.advising.change import Harm
from ftk.runs.advising.changes import BUSY_TOKENS, ladders
from ftk.runs.advising.fit import MARGIN, find_fit
from ftk.runs.advising.memory_size import memory_of
from ftk.runs.advising.written import difference


@pytest.fixture
def llama_recipe(tmp_path: Path) -> Path:
    return write_recipe(tmp_path)


def test_factors_by_hand(llama_recipe):
    """One more forward pass for three units of work or for two; a pass of too few tokens waits for the weights."""
    checkpointing = "training.activation_checkpointing=true"
    assert factor(llama_recipe, checkpointing, "tuning=full") == pytest.approx(4 / 3)
    assert factor(llama_recipe, checkpointing) == pytest.approx(3 / 2)
    assert factor(llama_recipe, "training.micro_batch_size=1") == 1.0
    assert factor(llama_recipe, "training.micro_batch_size=1", "data.max_length=64") == pytest.approx(BUSY_TOKENS / 64)
    # At 2,048 tokens a pass 2.5 bytes a weight are moved, and 4,096 operations made, of which 300 take a byte's time.
    unpacking = factor(llama_recipe, "quantization=nf4", "training.micro_batch_size=1")
    assert unpacking == pytest.approx(1 + 2.5 * 300 / 4096)


def test_smaller_chunks_of_the_loss_take_less(llama_recipe):
    """Of a frozen head 256 tokens for 1,024; of a trained one no more than that is kept, for a fourth product."""
    small = "training.loss_chunk=256"
    assert factor(llama_recipe, small) == 1.0
    head, layers = 128256 * 4096, 2 * (4096 * (2 * 4096 + 2 * 1024 + 3 * 14336) + 2 * 4096)
    one_row = ("tuning=full", "training.micro_batch_size=1")
    assert factor(llama_recipe, small, *one_row) == pytest.approx(1 + head / (3 * (2 * head + layers + 4096)))
    # The logits of eight rows are computed again as it is.
    assert factor(llama_recipe, small, "tuning=full") == 1.0
    with_logits = (*one_row, "training.activation_checkpointing=true", "training.optimizer=sgd")
    assert total(llama_recipe, *with_logits, small) < total(llama_recipe, *with_logits)


@pytest.mark.parametrize(("now", "then"), [("1e-6", 1e-5), ("2e-5", 2e-4), ("5e-4", 1e-3), ("2e-3", 2e-3)])
def test_adapters_take_ten_times_the_learning_rate(llama_recipe, now, then):
    """Of what the recipe has: preferences at 1e-6 must not come to what answers take."""
    recipe = load_recipe(str(llama_recipe), ("tuning=full", f"training.learning_rate={now}")).recipe
    (lora, _) = [step for step in ladders(recipe, on_gpu=True)["tuning"] if step]
    assert lora.apply(recipe).training.learning_rate == then
    assert lora.overrides[-1] == f"training.learning_rate={then:.1e}"


def test_plans_hold_when_they_are_pasted(llama_recipe):
    """Each plan, put behind the recipe, takes what was told, which fits; and none goes further than another needs."""
    memory = total(llama_recipe) // 2
    fit = find_fit(asked(llama_recipe), memory)
    assert not fit.fits
    assert fit.plans
    for plan in fit.plans:
        assert total(llama_recipe, *plan.overrides) == plan.total_bytes
        assert plan.total_bytes * MARGIN <= memory
    assert [plan.harms for plan in fit.plans] == sorted(plan.harms for plan in fit.plans)
    sets = [set(plan.overrides) for plan in fit.plans]
    assert not any(one < other for one in sets for other in sets)


def test_least_harmful_comes_first(llama_recipe):
    """Where smaller portions are enough, nothing that alters the result is proposed before."""
    enough = round(total(llama_recipe, "training.micro_batch_size=4") * MARGIN) + 1
    fit = find_fit(asked(llama_recipe), enough)
    assert fit.plans[0].harm is Harm.NONE
    assert ("training.micro_batch_size=4",) in [plan.overrides for plan in fit.plans]
    assert not any("micro_batch_size=2" in " ".join(plan.overrides) for plan in fit.plans)


def test_a_recipe_that_fits_is_left_alone(llama_recipe):
    fit = find_fit(asked(llama_recipe), 10**15)
    assert fit.fits
    assert fit.plans == ()


def test_one_device_leaves_out_more_of_them(llama_recipe):
    changed = asked(llama_recipe, "tuning=full")
    # A little less than all that leaves the result as it is, or nearly so, can do on one device.
    sparing = ("training.micro_batch_size=1", "training.activation_checkpointing=true", "training.optimizer=adamw_8bit")
    memory = round(0.9 * total(llama_recipe, "tuning=full", *sparing))
    everywhere, alone = find_fit(changed, memory), find_fit(changed, memory, one_device=True)
    assert any("parallel" in " ".join(plan.overrides) for plan in everywhere.plans)
    assert alone.plans
    assert not any("parallel" in " ".join(plan.overrides) for plan in alone.plans)


def test_eight_bit_states_keep_the_betas(llama_recipe):
    steps = [step for ladder in ladders(asked(llama_recipe).recipe, on_gpu=True).values() for step in ladder if step]
    change = next(step for step in steps if "adamw_8bit" in step.overrides[0])
    pasted = load_recipe(str(llama_recipe), change.overrides).recipe
    assert pasted.training.optimizer.betas == (0.9, 0.95)
    assert pasted == change.apply(load_recipe(str(llama_recipe)).recipe)


def test_changes_are_what_their_overrides_say(llama_recipe):
    """The search changes recipes in memory; pasted overrides come to the very same recipes."""
    for overrides in ((), ("tuning=full", "training.precision=fp32")):
        recipe = load_recipe(str(llama_recipe), overrides).recipe
        for step in [step for ladder in ladders(recipe, on_gpu=True).values() for step in ladder if step]:
            pasted = load_recipe(str(llama_recipe), (*overrides, *step.overrides)).recipe
            assert pasted == step.apply(recipe), step.overrides


def test_what_is_written_loads_to_the_plan(llama_recipe, ftk_json: Ftk, tmp_path):
    new = tmp_path / "sub" / "new.yaml"
    new.parent.mkdir()
    answer = ftk_json("estimate-memory", llama_recipe, "--fit", "6GB", "--write", new)
    assert answer["exit_code"] == 0
    plan = answer["plans"][0]
    assert load_recipe(str(new)).recipe == load_recipe(str(llama_recipe), plan["overrides"]).recipe
    assert new.read_text().startswith("# Fits into 6 GB")
    assert "extends: ../recipe.yaml" in new.read_text()
    again = ftk_json("estimate-memory", llama_recipe, "--gpu", "RTX 4090", "--write", new)
    assert again["exit_code"] == 2
    assert "not overwritten" in again["error"]["message"]


def test_nothing_fits_tells_the_nearest(llama_recipe, ftk_json: Ftk, tmp_path):
    new = tmp_path / "new.yaml"
    answer = ftk_json("estimate-memory", llama_recipe, "--fit", "100MB", "--write", new)
    assert answer["exit_code"] == 4
    assert answer["plans"] == []
    assert answer["nearest"]["total_bytes"] > 10**8
    assert "Nearest, with" in answer["error"]["message"]
    assert not new.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--fit", "24GB", "--gpu", "T4"), "give --fit with a size"),
        (("--fit", "lots"), "lots is no GPU"),
        (("--gpu", "RTX 4099"), "Did you mean RTX 4090"),
        (("--fit", "0GB"), "not above zero"),
        (("--write", "new.yaml"), "give --fit with a size"),
        (("--fit", "24GB", "--write", "new.txt"), "a recipe is a .yaml file"),
    ],
)
def test_bad_input_is_one_message(llama_recipe, ftk_json: Ftk, words, message):
    answer = ftk_json("estimate-memory", llama_recipe, *words)
    assert answer["exit_code"] == 2
    assert message in answer["error"]["message"]


def test_write_needs_a_recipe(ftk_json: Ftk):
    answer = ftk_json("estimate-memory", "--model", "ftk://tiny", "--fit", "1GB", "--write", "new.yaml")
    assert "needs a recipe to start from" in answer["error"]["message"]


def test_sizes_and_names():
    assert memory_of("24GB", place="x") == 24 * 10**9
    assert memory_of("24GiB", place="x") == 24 * 2**30
    assert 23 * 2**30 < memory_of("RTX 4090", place="x") < 24 * 2**30
    with pytest.raises(RecipeError, match="Did you mean H200"):
        memory_of("H201", place="x")


def test_difference_replaces_a_section_of_another_name():
    base = {"tuning": {"name": "full"}, "a": {"x": 1, "y": 2}, "q": None}
    changed = {"tuning": {"name": "lora", "rank": 8}, "a": {"x": 1, "y": 3}, "q": {"name": "nf4"}}
    assert difference(base, changed) == {
        "tuning": {"name": "lora", "rank": 8},
        "a": {"y": 3},
        "q": {"name": "nf4"},
    }
