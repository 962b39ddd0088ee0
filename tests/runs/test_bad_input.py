"""What is wrong with a recipe's input is found before anything is written or learned, and said with its remedy."""

import json
import shutil
from pathlib import Path

import pytest
from run_ftk import Ftk


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def copy_of(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["evaluation.metrics=[no_such_module:score]"], "there is no module no_such_module"),
        (["evaluation.metrics=[json_fields]"], "json_fields compares the fields of JSON objects"),
        (["evaluation.by=kind"], "no column kind to group by"),
        (["evaluation.before=true", "evaluation.shots=[0, 4]"], "4 examples were asked for"),
    ],
)
def test_an_evaluation_that_cannot_be_made_is_refused_before_training(
    recipe_file: Path, tmp_path: Path, ftk_json: Ftk, overrides: list[str], message: str
) -> None:
    """With `before: false` it would else be found when training is over."""
    answer = ftk_json("train", recipe_file, "evaluation.before=false", *overrides)
    assert answer["exit_code"] == 2
    assert message in answer["error"]["message"]
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_is_not_installed_is_said_before_training(
    recipe_file: Path, tmp_path: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ftk.train.trackers.find_spec", lambda name: None)
    answer = ftk_json("train", recipe_file, "training.trackers=wandb")
    assert answer["exit_code"] == 3
    assert "ftk[wandb]" in answer["error"]["message"]
    assert not (tmp_path / "run").exists()


def test_a_broken_model_folder_is_no_defect(
    recipe_file: Path, model_folder: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    model = copy_of(model_folder, tmp_path)
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    answer = ftk_json("train", recipe_file, "--model", model)
    assert (answer["exit_code"], answer["error"]["type"]) == (2, "ModelError")
    assert "safetensors file is broken" in answer["error"]["message"]
    assert "Traceback" not in answer["stderr"]

    (model / "config.json").write_text("{")
    answer = ftk_json("train", recipe_file, "--model", model)
    assert answer["exit_code"] == 2
    assert answer["error"]["message"].startswith(f"config.json in {model} cannot be used")


def test_a_template_that_fails_is_named(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    for number, text in enumerate(
        ("{{ raise_exception('no') }}", "{% for m in messages %}", "{{ messages[0].content }}")
    ):
        template = tmp_path / f"{number}.jinja"
        template.write_text(text)
        answer = ftk_json("train", recipe_file, f"data.chat_template={template}")
        assert answer["exit_code"] == 2
        assert answer["error"]["place"] == str(template)
        assert "Name another" in answer["error"]["message"]


CODE = {
    "configuration_mine.py": "from transformers import LlamaConfig\n\n\n"
    "class MineConfig(LlamaConfig):\n    model_type = 'mine'\n",
    "modeling_mine.py": "from transformers import LlamaForCausalLM\n\nfrom .configuration_mine import MineConfig\n\n\n"
    "class MineForCausalLM(LlamaForCausalLM):\n    config_class = MineConfig\n",
}


def test_code_that_comes_with_a_model_runs_only_where_the_recipe_says_so_and_aloud(
    recipe_file: Path,
    model_folder: Path,
    tmp_path: Path,
    rows_file: Path,
    ftk_json: Ftk,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = copy_of(model_folder, tmp_path)
    for name, text in CODE.items():
        (model / name).write_text(text)
    classes = {"AutoConfig": "configuration_mine.MineConfig", "AutoModelForCausalLM": "modeling_mine.MineForCausalLM"}
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "model_type": "mine", "auto_map": classes}))

    short = ("training.max_steps=1", "evaluation.metrics=[]", "evaluation.every=null")
    refused = ftk_json("train", recipe_file, "--model", model, *short)
    assert refused["exit_code"] == 2
    assert "model.trust_remote_code" in refused["error"]["message"]

    said = "trust_remote_code is on: Python code that comes with"
    answer = ftk_json("train", recipe_file, "--model", model, "model.trust_remote_code=true", *short)
    assert answer["exit_code"] == 0
    assert f"{said} {model} runs on this machine" in answer["stderr"].splitlines()[0]
    assert said not in ftk_json("train", recipe_file, *short, "--output", tmp_path / "other")["stderr"]
    # The run's recipe has said it; whoever uses the run is told again.
    run = tmp_path / "run"
    for words in (["eval", run, "--data", rows_file], ["generate", run, "Hello", "--max-new-tokens", 1]):
        used = ftk_json(*words)
        assert used["exit_code"] == 0
        assert said in used["stderr"]


def test_eval_finds_out_first_that_its_answers_cannot_be_written(
    model_folder: Path, rows_file: Path, tmp_path: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("the model was loaded")

    (tmp_path / "a-file").write_text("")
    monkeypatch.setattr("ftk.runs.evaluate.load_ready_model", fail)
    output = tmp_path / "a-file" / "answers.jsonl"
    answer = ftk_json("eval", model_folder, "--data", rows_file, "--metrics", "f1", "--output", output)
    assert answer["exit_code"] == 2
    assert answer["error"]["place"] == str(output)
    assert "cannot be written" in answer["error"]["message"]


def test_eval_finds_out_first_that_a_metric_is_missing(
    model_folder: Path, rows_file: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("losses were measured")

    monkeypatch.setattr("ftk.runs.evaluate.loss_metrics", fail)
    answer = ftk_json("eval", model_folder, "--data", rows_file, "--metrics", "no_such_module:score")
    assert answer["exit_code"] == 2
    assert "there is no module no_such_module" in answer["error"]["message"]
