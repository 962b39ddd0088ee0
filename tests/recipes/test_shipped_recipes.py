"""Every recipe that ships trains, is measured and leaves a model: on a small model and local rows, by overrides."""

import json
from pathlib import Path

import pytest
from run_ftk import Ftk

RECIPES = Path(__file__).parents[2] / "recipes"
SHARED = Path(__file__).parents[3] / "shared" / "data"
SHORT = (
    "training.max_steps=2",
    "training.batch_size=4",
    "data.max_length=256",
    "evaluation.max_rows=2",
    "evaluation.max_new_tokens=4",
)
# Under fsdp in the recipe one process is one shard; two are tested in tests/runs/test_processes.py.
OVERRIDES = {
    "quickstart": ["data.train=ftk://orders/train", "evaluation.shots=0"],
    "sft_lora": ["training.precision=fp32"],
    "sft_qlora": ["training.precision=fp32"],
    "sft_full": ["training.precision=fp32"],
    "sft_gsm8k": ["data.train.0.split=train", "data.eval.0.split=train"],
    **{f"preference_{loss}": [] for loss in ("dpo", "ipo", "simpo", "orpo", "kto", "apo")},
    "preference_gsm8k": [],
    "sft_context": ["data.train.0.split=train[:40]", "evaluation.bias.max_groups=1"],
    "cpt": ["data.train.1.glob=json/*.py", "data.train.1.limit=2000 tokens"],
    "long_context": [
        "model.context.length=512",
        "data.train.0.glob=json/decoder.py",
        "data.eval.0.limit=500 tokens",
        "data.max_length=512",
        "evaluation.passkey.lengths=[256, 512]",
    ],
}
CHAINS = {"code_assistant"}
"""Recipes with stages, each of which runs in a process of its own: tests/recipes/test_shipped_chains.py."""
OTHER_LOSSES = {
    "preference_dpo": ("robust", "dpo_norm", "{name: dpo, label_smoothing: 0.1, divergence: js}"),
    "preference_ipo": ("hinge",),
    "preference_orpo": ("cpo",),
    "preference_apo": ("apo_down",),
}
"""What the comments of these recipes name besides their own."""
ADVISED = {
    "long_context",
    "preference_gsm8k",
    "preference_kto",
    "preference_orpo",
    "quickstart",
    "sft_context",
    "sft_full",
    "sft_gsm8k",
}
ANSWERS = {"loss", "perplexity", "token_accuracy", "general_loss"}
TEXTS = {"loss", "perplexity", "bits_per_byte", "general_loss", "general_perplexity", "general_bits_per_byte"}
PREFERENCES = {"loss", "rewards_chosen", "rewards_rejected", "rewards_margin", "logps_chosen", "general_loss"}


@pytest.fixture
def local_rows(tmp_path: Path) -> Path:
    """Rows in the format of GSM8K, with which all recipes can do; others, held out, are beside them."""
    for name, numbers in (("rows", range(12)), ("held_out", range(12, 16))):
        rows = [{"question": f"What is {n} plus {n}?", "answer": f"{n}+{n}={2 * n}.\n#### {2 * n}"} for n in numbers]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return tmp_path / "rows.jsonl"


def test_each_recipe_has_its_overrides() -> None:
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(OVERRIDES) | CHAINS


@pytest.fixture
def local_pairs(tmp_path: Path) -> Path:
    """Solutions, right and wrong, in columns of other names than ftk's."""
    path = tmp_path / "pairs.jsonl"
    rows = [{"problem": f"What is {n} plus {n}?", "right": f"A: {2 * n}", "wrong": f"A: {n}"} for n in range(1, 21)]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.mark.parametrize("name", sorted(OVERRIDES))
def test_recipe_runs(
    name: str, model_folder: Path, local_rows: Path, local_pairs: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    words = [*SHORT, *OVERRIDES[name], f"model.id={model_folder}", f"output.folder={tmp_path / 'run'}"]
    parts, held_out = ("train", "eval"), local_rows.with_name("held_out.jsonl")
    if name == "sft_gsm8k":
        sources = zip(parts, (local_rows, held_out), strict=True)
        words += [f"data.{part}.0.{key}" for part, path in sources for key in (f"source={path}", "subset=null")]
    elif name == "preference_gsm8k":
        columns = "columns={prompt: problem, chosen: right, rejected: wrong}"
        words += [f"data.{part}.0.{key}" for part in parts for key in (f"source={local_pairs}", columns)]
    elif name.startswith("preference_"):
        words += ["data.eval.0.split=train[:8]"]
    elif name == "cpt":
        book = tmp_path / "book.txt"
        book.write_text("".join(f"Line {number} of a short book.\n" for number in range(60)))
        words += [f"data.{part}.0.source={book}" for part in parts]
    elif name not in ("quickstart", "sft_context", "long_context"):
        words += [f"data.train={local_rows}", f"data.eval={held_out}"]
    answer = ftk_json("train", RECIPES / f"{name}.yaml", *words)
    assert answer["exit_code"] == 0, answer["stderr"]
    assert answer["steps"] == 2
    assert Path(answer["model_folder"], "README.md").exists()
    figures = TEXTS if name in ("cpt", "long_context") else PREFERENCES if name.startswith("preference_") else ANSWERS
    assert set(answer["evaluation"]["after"]) >= figures
    # Their comments say why, or the rows of this test: pairs taken apart, and every weight trained on few rows.
    assert "advice" not in answer["stderr"] or name in ADVISED


@pytest.mark.parametrize(("name", "loss"), [(name, loss) for name, losses in OTHER_LOSSES.items() for loss in losses])
def test_the_other_losses_of_a_family_run(
    name: str, loss: str, model_folder: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    words = [*SHORT, f"task.loss={loss}", f"model.id={model_folder}", f"output.folder={tmp_path / 'run'}"]
    short = [
        "data.train.0.split=train[:8]",
        "data.eval.0.split=train[:8]",
        "evaluation.metrics=[]",
        "evaluation.by=null",
    ]
    answer = ftk_json("train", RECIPES / f"{name}.yaml", *words, *short)
    assert answer["exit_code"] == 0, answer["stderr"]
    assert set(answer["evaluation"]["after"]) >= PREFERENCES


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_gsm8k_itself_trains_from_a_file(tmp_path: Path, ftk_json: Ftk) -> None:
    files = {"train": SHARED / "gsm8k_train.jsonl", "eval": SHARED / "gsm8k_eval.jsonl"}
    words = [f"data.{part}.0.source={file}" for part, file in files.items()]
    words += ["data.train.0.subset=null", "data.eval.0.subset=null"]
    words += ["data.train.0.split=train[:64]", "data.eval.0.split=train[:16]"]
    steps = ["training.max_steps=8", "training.batch_size=8", "evaluation.max_rows=2", "evaluation.max_new_tokens=8"]
    answer = ftk_json("train", RECIPES / "sft_gsm8k.yaml", *words, *steps, f"output.folder={tmp_path / 'run'}")
    assert answer["exit_code"] == 0, answer["stderr"]
    assert answer["evaluation"]["after"]["loss"] < answer["evaluation"]["before"]["loss"]


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is not there")
def test_solutions_of_gsm8k_are_preferred_from_a_file(tmp_path: Path, ftk_json: Ftk) -> None:
    words = [f"data.{part}.0.source={SHARED / 'gsm8k_preference.jsonl'}" for part in ("train", "eval")]
    words += ["model.id=ftk://tiny", "data.train.0.split=train[:32]", "data.eval.0.split=train[:32]"]
    steps = ["training.max_steps=6", "training.batch_size=8", "training.schedule=constant"]
    answer = ftk_json("train", RECIPES / "preference_gsm8k.yaml", *words, *steps, f"output.folder={tmp_path / 'run'}")
    assert answer["exit_code"] == 0, answer["stderr"]
    before, after = (answer["evaluation"][when] for when in ("before", "after"))
    assert after["rewards_margin"] > before["rewards_margin"] == pytest.approx(0, abs=1e-4)
    assert after["loss"] < before["loss"] == pytest.approx(0.6931, abs=1e-3)
