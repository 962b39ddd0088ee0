"""`ftk train` as a user calls it: what it prints, what it leaves behind, and that it can be used afterwards."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from run_ftk import NUM_ROWS, Ftk
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftk.runs import answers

STEPS = 6


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_run_from_recipe_to_report(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    answer = ftk_json("train", recipe_file)
    assert answer["exit_code"] == 0
    run = tmp_path / "run"
    assert (answer["run_folder"], answer["model_folder"]) == (str(run), str(run / "model"))
    assert answer["steps"] == STEPS
    assert answer["evaluation"]["after"]["loss"] < answer["evaluation"]["before"]["loss"]
    assert set(answer["evaluation"]["before"]) == {
        "loss",
        "perplexity",
        "token_accuracy",
        "exact_match",
        "general_loss",
    }
    assert answer["peak_memory_bytes"] > 0
    assert isinstance(answer["overfitting"], bool)

    steps = lines_of(run / "metrics.jsonl")
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    keys = {"step", "epoch", "loss", "token_accuracy", "learning_rate", "grad_norm", "tokens", "tokens_per_second"}
    assert keys | {"peak_memory_bytes"} == set(steps[0])
    assert steps[-1]["tokens"] == answer["tokens"]
    assert steps[-1]["loss"] == answer["final_loss"]
    assert steps[-1]["epoch"] == 2

    for name in ("recipe.yaml", "environment.json", "report.md", "report.json", "curves.png"):
        assert (run / name).stat().st_size > 0
    assert len(lines_of(run / "evaluations" / "answers_after.jsonl")) == NUM_ROWS
    assert sorted(path.name for path in (run / "checkpoints").iterdir() if path.name != "best") == [
        f"step-{step}" for step in range(1, STEPS + 1)
    ]


def test_the_model_folder_loads_and_stops_where_it_was_taught(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    ftk_json("train", recipe_file, "training.max_steps=1", "evaluation.metrics=[]")
    folder = tmp_path / "run" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    ends = model.generation_config.eos_token_id
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in (ends if isinstance(ends, list) else [ends])
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nbase_model: ")
    assert "training:" in card


def test_no_pickle_anywhere(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    ftk_json("train", recipe_file, "training.max_steps=1", "evaluation.metrics=[]")
    endings = {path.suffix for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert endings <= {".json", ".jsonl", ".safetensors", ".yaml", ".md", ".png", ".jinja"}


def test_micro_batches_and_packing_change_nothing(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    """Exact accumulation, seen from outside: any split and packing gives the same losses and the same weights."""
    common = ("evaluation.metrics=[]", "checkpoint.every=null")
    model = tmp_path / "no_dropout"
    source = Path(yaml_value(recipe_file, "model"))
    model.mkdir()
    for file in source.iterdir():
        (model / file.name).write_bytes(file.read_bytes())
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "attention_dropout": 0.0}))
    found = []
    for number, split in enumerate(
        (["training.micro_batch_size=4"], ["training.micro_batch_size=1"], ["data.packing=true"])
    ):
        output = tmp_path / f"split{number}"
        ftk_json("train", recipe_file, f"model.id={model}", *common, *split, "--output", output)
        losses = [line["loss"] for line in lines_of(output / "metrics.jsonl")]
        found.append((losses, load_file(output / "model" / "model.safetensors")))
    for losses, weights in found[1:]:
        assert losses == pytest.approx(found[0][0], rel=1e-5)
        for name, weight in weights.items():
            torch.testing.assert_close(weight, found[0][1][name], rtol=1e-3, atol=1e-4)


def yaml_value(recipe_file: Path, key: str) -> str:
    return next(line.split(": ", 1)[1] for line in recipe_file.read_text().splitlines() if line.startswith(f"{key}: "))


def test_lora_leaves_an_adapter(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    answer = ftk_json("train", recipe_file, "tuning={name: lora, rank: 2}", "training.max_steps=2")
    assert answer["exit_code"] == 0
    assert (tmp_path / "run" / "model" / "adapter_config.json").exists()
    again = ftk_json(
        "eval", tmp_path / "run", "--data", yaml_value(recipe_file, "data").split("train: ")[1].split(",")[0]
    )
    assert again["metrics"]["loss"] == pytest.approx(answer["evaluation"]["after"]["loss"], rel=1e-5)


def test_a_finished_run_is_not_overwritten(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    words = ("train", recipe_file, "training.max_steps=1", "evaluation.metrics=[]")
    ftk_json(*words)
    first = (tmp_path / "run" / "metrics.jsonl").read_text()
    again = ftk_json(*words)
    assert again["run_folder"] == str(tmp_path / "run-2")
    assert "holds a finished run" in again["stderr"]
    assert (tmp_path / "run" / "metrics.jsonl").read_text() == first


def test_a_loss_that_is_not_finite_names_its_rows(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    answer = ftk_json(
        "train",
        recipe_file,
        "training.learning_rate=9.9",
        "training.max_grad_norm=null",
        "training.epochs=50",
        "training.optimizer={name: sgd}",
        "evaluation.every=null",
        "evaluation.metrics=[]",
    )
    assert answer["exit_code"] == 4
    assert answer["error"]["type"] == "RunError"
    assert "rows.jsonl:" in answer["error"]["message"]


@pytest.mark.parametrize(
    "place", ["ftk.train.step.Step.__call__", "ftk.models.load._attention", "ftk.runs.measure.loss_metrics"]
)
def test_out_of_memory_is_no_defect(
    recipe_file: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(place, fail)
    answer = ftk_json("train", recipe_file, "evaluation.metrics=[]")
    assert answer["exit_code"] == 4
    assert answer["error"]["type"] == "RunError"
    assert "training.micro_batch_size" in answer["error"]["message"]
    assert "Traceback" not in answer["stderr"]


@pytest.mark.filterwarnings("default")
def test_generation_does_not_compile_anew_for_each_token(
    recipe_file: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[int] = []
    own_compile, own_decode = torch.nn.Module.compile, answers.decode

    def backend(graph: Any, _: Any) -> Any:
        compiled.append(1)
        return graph.forward

    def decode(*arguments: Any, **rest: Any) -> Any:
        before = len(compiled)
        found = own_decode(*arguments, **rest)
        assert len(compiled) == before
        return found

    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: own_compile(module, backend=backend))
    monkeypatch.setattr(answers, "decode", decode)
    answer = ftk_json("train", recipe_file, "training.compile=true", "training.max_steps=1")
    assert answer["exit_code"] == 0, answer["stderr"]
    assert compiled


def test_a_failed_upload_is_tried_again_without_training(
    recipe_file: Path, tmp_path: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    uploaded: list[Path] = []

    class Hub:
        def create_repo(self, name: str, **_: Any) -> None:
            if not uploaded:
                uploaded.append(Path())
                raise ConnectionError("no route")

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> str:
            uploaded.append(folder_path)
            return f"https://hub/{repo_id}"

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_secret")
    words = ("train", recipe_file, "output.push_to_hub=me/orders", "evaluation.metrics=[]")
    failed = ftk_json(*words)
    assert (failed["exit_code"], failed["error"]["type"]) == (4, "RunError")
    assert "no route" in failed["error"]["message"]
    again = ftk_json(*words)
    assert again["run_folder"] == str(tmp_path / "run")
    assert "uploaded to https://hub/me/orders" in again["stderr"]
    assert uploaded[1:] == [tmp_path / "run" / "model"]
    assert len(lines_of(tmp_path / "run" / "metrics.jsonl")) == STEPS


def test_what_the_hub_would_refuse_is_told_before_training(
    recipe_file: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    for name, code, message in (("my model", 2, "no name of a hub repository"), ("me/orders", 3, "HF_TOKEN")):
        answer = ftk_json("train", recipe_file, f"output.push_to_hub={name}")
        assert answer["exit_code"] == code
        assert message in answer["error"]["message"]
        assert "going on" not in answer["stderr"]


def test_wrong_input_writes_nothing(recipe_file: Path, tmp_path: Path, ftk_json: Ftk) -> None:
    before = sorted(tmp_path.rglob("*"))
    for words in (
        ["training.learning_rte=1"],
        ["data.max_length=100000"],
        ["data.train=nowhere.jsonl"],
        ["tuning={name: lora, target_modules: [q_prj]}"],
        ["model.id=/nowhere"],
        ["output.folder=/proc/nope/run"],
    ):
        answer = ftk_json("train", recipe_file, *words)
        assert answer["exit_code"] == 2, words
        assert answer["error"]["exit_code"] == 2
        assert "Traceback" not in answer["stderr"]
    assert sorted(tmp_path.rglob("*")) == before


def test_perplexity_is_the_exponential_of_the_loss(recipe_file: Path, ftk_json: Ftk) -> None:
    after = ftk_json("train", recipe_file, "training.max_steps=1", "evaluation.metrics=[]")["evaluation"]["after"]
    assert after["perplexity"] == pytest.approx(math.exp(after["loss"]), rel=1e-9)


def test_a_tilde_is_the_home_folder(
    recipe_file: Path, tmp_path: Path, ftk_json: Ftk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a recipe no shell has put the home folder in its place."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    answer = ftk_json("train", recipe_file, "training.max_steps=1", "evaluation.metrics=[]", "output.folder=~/run")
    assert answer["run_folder"] == str(tmp_path / "home" / "run")
    assert not (tmp_path / "~").exists()
    again = ftk_json("eval", "~/run", "--metrics", "f1", "--max-new-tokens", 1, "--output", "~/answers.jsonl")
    assert again["answers_file"] == str(tmp_path / "home" / "answers.jsonl")


def test_the_exported_model_stops_by_itself_on_a_trained_example(
    recipe_file: Path, tmp_path: Path, ftk_json: Ftk
) -> None:
    """Known bug 'generation settings': it would run on if the exported settings named another end than the trained."""
    row = tmp_path / "row.jsonl"
    row.write_text('{"question": "Ready?", "answer": "Yes."}\n')
    quick = ["training.max_steps=150", "training.schedule=constant", "checkpoint.every=null", "evaluation.metrics=[]"]
    ftk_json("train", recipe_file, f"data.train={row}", "data.eval=null", "evaluation.every=null", *quick)
    folder = tmp_path / "run" / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Ready?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=32)[0, prompt["input_ids"].shape[1] :]
    assert tokenizer.decode(answer) == "Yes.<|im_end|>"
