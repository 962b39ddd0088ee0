"""`ftk eval` as it is typed."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from ftk.core.types import Conversation
from ftk.data.render import renderer_for
from ftk.evaluation.metrics.rouge_l import RougeL
from ftk.runs import answers as answers_module
from ftk.runs.answers import evaluate_answers
from ftk.runs.eval_request import EvalRequest
from ftk.runs.evaluate import evaluate

# PEFT asks for a name that transformers 5.23 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Files that are written without a name land in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FTK_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def run_folder(tmp_path, model_folder, rows_file):
    """What a finished run leaves for evaluation: its recipe and its model."""
    folder = tmp_path / "runs" / "mine"
    folder.mkdir(parents=True)
    shutil.copytree(model_folder, folder / "model")
    recipe = {
        "model": {"id": "gone/elsewhere", "revision": "abc"},
        "data": {"train": str(rows_file), "eval": str(rows_file), "max_length": 200},
        "evaluation": {"metrics": ["f1"], "max_new_tokens": 3, "shots": [0, 2]},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    return folder


def test_a_model_on_rows(ftk_json, model_folder, rows_file):
    found = ftk_json(
        "eval", model_folder, "--data", rows_file, "--metrics", "exact_match,rouge_l", "--max-new-tokens", 4
    )
    assert found["exit_code"] == 0
    assert set(found) == {"metrics", "num_examples", "seconds", "answers_file", "exit_code", "stderr"}
    assert set(found["metrics"]) == {"loss", "perplexity", "token_accuracy", "exact_match", "rouge_l"}
    assert found["num_examples"] == 12
    records = [json.loads(line) for line in Path(found["answers_file"]).read_text().splitlines()]
    assert [record["row"] for record in records] == list(range(1, 13))
    assert set(records[0]) == {"source", "row", "shots", "prompt", "answer", "reference", "is_cut", "metrics"}
    mean = sum(record["metrics"]["rouge_l"] for record in records) / 12
    assert found["metrics"]["rouge_l"] == pytest.approx(mean)


def test_the_loss_is_that_of_transformers_over_all_answer_tokens(ftk_json, model_folder, rows_file):
    found = ftk_json("eval", model_folder, "--data", rows_file)
    model = AutoModelForCausalLM.from_pretrained(model_folder).eval()
    renderer = renderer_for(AutoTokenizer.from_pretrained(model_folder), chat_template=None)
    total, num, correct = 0.0, 0, 0
    for line in rows_file.read_text().splitlines():
        row = json.loads(line)
        messages = ({"role": "user", "content": row["question"]}, {"role": "assistant", "content": row["answer"]})
        rendered = renderer.render(Conversation(messages, 1, "rows", row))
        token_ids = torch.tensor(rendered.token_ids_L).long()
        with torch.no_grad():
            logps = model(token_ids[None]).logits[0, :-1].double().log_softmax(-1)
        is_answer = torch.tensor(rendered.answers_L[1:])
        total -= float(logps.gather(1, token_ids[1:, None])[is_answer].sum())
        correct += int((logps.argmax(-1) == token_ids[1:])[is_answer].sum())
        num += int(is_answer.sum())
    assert found["metrics"]["loss"] == pytest.approx(total / num, rel=1e-5)
    assert found["metrics"]["token_accuracy"] == pytest.approx(correct / num)
    assert found["answers_file"] is None, "without metrics nothing is generated"


def test_a_run_brings_its_recipe(ftk_json, run_folder):
    found = ftk_json("eval", run_folder)
    assert set(found["metrics"]) == {"loss", "perplexity", "token_accuracy", "f1"}
    assert found["answers_file"] == str(run_folder / "evaluations" / "answers.jsonl")
    again = ftk_json("eval", run_folder / "model", "--metrics", "exact_match")
    assert again["metrics"]["loss"] == found["metrics"]["loss"]
    assert "exact_match" in again["metrics"]
    assert again["answers_file"] == str(run_folder.resolve() / "evaluations" / "answers-2.jsonl"), (
        "nothing is overwritten"
    )


def test_examples_in_the_prompt_stand_side_by_side(ftk_json, run_folder, tmp_path):
    rows = tmp_path / "other.jsonl"
    rows.write_text("".join(json.dumps({"question": f"q{n}", "answer": "a", "kind": n % 2}) + "\n" for n in range(4)))
    found = ftk_json("eval", run_folder, "--data", rows, "--shots", "0,2", "--by", "kind", "--output", "mine.jsonl")
    names = {f"f1{group}{shots}" for group in ("", "[kind=0]", "[kind=1]") for shots in ("", "@2")}
    assert set(found["metrics"]) == {"loss", "perplexity", "token_accuracy"} | names
    assert "0 examples shown" in found["stderr"]
    assert "2 examples shown" in found["stderr"]
    records = [json.loads(line) for line in Path("mine.jsonl").read_text().splitlines()]
    assert [record["shots"] for record in records] == [0] * 4 + [2] * 4
    assert records[4]["prompt"].count("How many are") == 2, "examples are training rows"


def test_max_rows_bounds_answers_and_not_the_loss(ftk_json, run_folder):
    whole = ftk_json("eval", run_folder)
    some = ftk_json("eval", run_folder, "--max-rows", 3, "--output", "some.jsonl")
    assert some["metrics"]["loss"] == whole["metrics"]["loss"]
    assert [json.loads(line)["row"] for line in Path("some.jsonl").read_text().splitlines()] == [1, 5, 9]


def test_columns_and_format_are_named(ftk_json, model_folder, tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"problem": "1+1", "solution": "so #### 1,002"}\n')
    found = ftk_json(
        "eval", model_folder, "--data", rows, "--format", "question_answer",
        "--columns", "question=problem,answer=solution", "--max-new-tokens", 2,
        "--metrics", "[{name: exact_match, extract: '#### (.+)', numbers: true}]",
    )  # fmt: skip
    assert found["exit_code"] == 0
    assert found["metrics"]["exact_match"] == 0.0


def test_an_adapter_folder(ftk_json, model_folder, rows_file, tmp_path):
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    adapted.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    base = ftk_json("eval", model_folder, "--data", rows_file)
    found = ftk_json("eval", tmp_path / "adapter", "--data", rows_file)
    assert found["exit_code"] == 0
    assert found["metrics"]["loss"] != base["metrics"]["loss"]


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (["MODEL"], 2, "no run folder that would bring its own held-out rows. Name some with --data"),
        (["MODEL", "--data", "ROWS", "--metrics", "exct_match"], 2, "Did you mean exact_match"),
        (["MODEL", "--data", "ROWS", "--metrics", "f1,f1"], 2, "more than once"),
        (["MODEL", "--data", "ROWS", "--metrics", "nowhere:f"], 2, "there is no module nowhere"),
        (["MODEL", "--data", "ROWS", "--metrics", "json_fields"], 2, "json_fields compares the fields"),
        (["MODEL", "--data", "ROWS", "--metrics", "f1", "--shots", "2"], 2, "--train-data"),
        (["MODEL", "--data", "ROWS", "--metrics", "f1", "--shots", "-1"], 2, "at least 0"),
        (["MODEL", "--data", "ROWS", "--metrics", "f1", "--by", "kind"], 2, "no column kind to group by"),
        (["MODEL", "--data", "ROWS", "--by", "kind"], 2, "evaluation.metrics"),
        (["MODEL", "--data", "ROWS", "--columns", "question"], 2, "question=problem"),
        (["MODEL", "--data", "missing.jsonl"], 2, "there is no such file"),
        (["missing-model", "--data", "ROWS"], 2, "missing-model"),
        (["MODEL", "--data", "ROWS", "--metrics", "os:getcwd"], 4, "os:getcwd failed on evaluation row 1: TypeError"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(
    ftk_json, model_folder, rows_file, words, exit_code, message, monkeypatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    named = {"MODEL": model_folder, "ROWS": rows_file}
    found = ftk_json("eval", *[named.get(word, word) for word in words], "--max-new-tokens", 2)
    assert found["exit_code"] == found["error"]["exit_code"] == exit_code
    assert message in found["error"]["message"]
    assert "Traceback" not in found["stderr"]
    assert not list(Path().glob("*.jsonl")), "nothing is written"


def test_a_file_that_cannot_be_written(ftk_json, run_folder):
    Path("a-file").write_text("")
    found = ftk_json("eval", run_folder, "--output", "a-file/answers.jsonl")
    assert found["exit_code"] == 2
    assert "cannot be written" in found["error"]["message"]


def test_out_of_memory_is_no_defect(ftk_json, model_folder, rows_file, monkeypatch):
    def fail(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("ftk.runs.evaluate.loss_metrics", fail)
    monkeypatch.setattr("ftk.runs.generate.decode", fail)
    for words in (["eval", model_folder, "--data", rows_file], ["generate", model_folder, "Hello"]):
        answer = ftk_json(*words)
        assert (answer["exit_code"], answer["error"]["type"]) == (4, "RunError"), words
        assert "smaller model" in answer["error"]["message"]


def test_two_evaluations_are_equal(run_folder):
    """Known bug 'evaluation in training mode': the model has attention dropout."""
    first, second = (evaluate(EvalRequest(str(run_folder)), tell=lambda sentence: None) for _ in range(2))
    assert first.metrics == second.metrics


@pytest.mark.parametrize("num_processes", [2, 3])
def test_answers_over_processes_are_those_of_one(model_folder, rows_file, monkeypatch, num_processes):
    """Known bug 'sampler over processes': each row is answered once, and every process has all."""
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    renderer = renderer_for(AutoTokenizer.from_pretrained(model_folder), chat_template=None)
    rows = [
        Conversation(({"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a b"}), n, "rows", {})
        for n in range(1, 6)
    ]
    settings = {"metrics": [RougeL()], "max_new_tokens": 5, "pad_token_id": 0}
    alone = evaluate_answers(model, renderer, rows, **settings)
    decoded: list[int] = []
    decode = answers_module.decode
    monkeypatch.setattr(
        answers_module,
        "decode",
        lambda lm, prompts, **rest: (decoded.append(len(prompts)), decode(lm, prompts, **rest))[1],
    )
    brought: list[object] = []
    monkeypatch.setattr("accelerate.utils.gather_object", lambda own: (brought.extend(own), list(brought))[1])
    for process_index in range(num_processes):
        group = SimpleNamespace(
            num_processes=num_processes, process_index=process_index, is_main_process=process_index == 0
        )
        together = evaluate_answers(model, renderer, rows, **settings, accelerator=group)
    assert sum(decoded) == 5
    assert together.rows == alone.rows
    assert together.metrics == alone.metrics
    decoded.clear()
    evaluate_answers(model, renderer, rows, **settings, accelerator=group, split=False)
    assert decoded == [5], "where weights are sharded, every process decodes all rows"
