"""What of a recipe does not go together, what is advised, and where each setting came from."""

import pytest
from recipe_stand_in import BASE

from ftk.recipe.explain import _all_paths
from ftk.recipe.foreign_keys import NOT_NEEDED, RENAMED


def test_places(load):
    loaded = load(BASE + "tuning:\n  rank: 4\n", "training.epochs=1")
    assert loaded.places["tuning.rank"] == "recipe.yaml:4"
    assert loaded.places["training.epochs"] == "training.epochs=1"
    assert loaded.place("data.train.0.source") == "recipe.yaml:2"
    assert loaded.place("tuning.alpha") == "recipe.yaml:3"


@pytest.mark.parametrize(
    ("text", "place", "part"),
    [
        ("tuning: full\nquantization: nf4\n", 4, "quantized weights take no gradient"),
        ("quantization: int8\nparallel: {strategy: fsdp}\n", 3, "cannot be sharded"),
        ("tuning: full\nmodel: {id: x, dtype: bfloat16}\n", 4, "updates below the precision"),
        ("training: {precision: fp16}\nparallel: {strategy: fsdp}\n", 3, "loss scaling"),
        ("quantization: nf4\nparallel: {strategy: fsdp_offload}\n", 3, "parallel.strategy: fsdp_offload do not"),
        ("training: {precision: fp16}\nparallel: {strategy: fsdp_offload}\n", 3, "fsdp_offload do not go together"),
        ("training: {optimizer: adamw_8bit}\nparallel: {strategy: fsdp_offload}\n", 3, "states fsdp_offload shards"),
        ("model: {id: x, attention: flash_attention_2}\ntraining: {precision: fp32}\n", 3, "16-bit numbers alone"),
        ("data: {train: x, max_length: 512}\ntraining: {batch_tokens: 256}\n", 4, "less than one row"),
        ("data: {train: [{source: a, weight: 1}, b]}\n", 3, "data.train.1 has no weight"),
        ("data: {train: a, eval: {source: b, weight: 1}}\n", 3, "does nothing"),
        ("data: {train: a}\nevaluation:\n  metrics: f1\n", 5, "needs held-out rows"),
        ("data: {train: a}\nevaluation:\n  early_stopping: {}\n", 5, "needs held-out rows"),
        ("evaluation: {early_stopping: {patience: 1}, every: null}\n", 3, "Set evaluation.every"),
        ("evaluation: {shots: [0, 5]}\n", 3, "none are generated"),
        ("evaluation: {shots: [5], metrics: f1, before: false}\n", 3, "is measured before training"),
        ("evaluation: {by: city}\n", 3, "Name evaluation.metrics"),
        ("evaluation: {metrics: [f1, f1]}\n", 3, "evaluation: metrics names f1 more than once"),
    ],
)
def test_what_does_not_go_together_is_refused(refusal, text, place, part):
    keys = {line.split(":")[0] for line in text.splitlines()}
    kept = [line if line.split(":")[0] not in keys else "#" for line in BASE.splitlines()]
    lines = refusal("\n".join([*kept, text]))
    assert any(line.startswith(f"recipe.yaml:{place}: ") and part in line for line in lines), lines


def test_advice_is_no_error(load):
    assert load(BASE).advice == []
    advice = load(
        "model: m\ndata: {train: a, eval: a}\ntuning: {rank: 256, alpha: 1}\ntraining: {learning_rate: 0.5}\n"
    ).advice
    assert [one.split(": ", 1)[0] for one in advice] == [f"recipe.yaml:{n}" for n in (4, 3, 3, 2)]
    for part in ("customary is 1e-07 to 0.001", "customary is 4 to 64", "1:8 to 8:1", "also trained on"):
        assert any(part in one for one in advice)
    assert load(BASE, "training.learning_rate=0.5", "training.optimizer=sgd").advice == []


@pytest.mark.parametrize(
    ("overrides", "num_rows", "part"),
    [
        (["tuning=full"], 999, "under 1000"),
        (["tuning=full"], 1000, None),
        (["tuning=lora"], 10, None),
        (["training.epochs=4"], 10_000, "rarely pay"),
        (["training.epochs=3"], 10_000, None),
        (["training.epochs=4"], 9_999, None),
        (["training.epochs=4", "training.max_steps=5"], 10_000, None),
    ],
)
def test_advice_on_rows(load, overrides, num_rows, part):
    advice = load(BASE, *overrides).advice_on_rows(num_rows)
    assert advice == [] if part is None else part in advice[0]


def test_foreign_keys_point_at_fields_and_are_none_of_ours():
    paths = set(_all_paths())
    # A mapping takes any name beneath it.
    fixed = {path for path in RENAMED.values() if not path.startswith("data.template_arguments.")}
    assert fixed <= paths
    assert "data.template_arguments" in paths
    own = {path.rsplit(".", 1)[-1] for path in paths}
    assert not own & {key for key in (*RENAMED, *NOT_NEEDED) if "." not in key}
