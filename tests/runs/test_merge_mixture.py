"""`ftk merge` of a mixture of experts: what it computes, what it is made of, that it trains, and every bad input."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from run_ftk import Ftk
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

from ftk.core.file_hash import sha256
from ftk.recipe.merge_file import load_merge

PROMPTS = ("Order two lamps.", "Call extension 7")
TOKENS = torch.arange(40).view(2, 20)
GATE = "model.layers.{}.block_sparse_moe.gate.weight"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with `a`, and with `b`, which is `a` with other perceptrons."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, "a")
    tuned("b", seed=1)
    return tmp_path


def tuned(name: str, *, seed: int) -> None:
    """A copy of `a` whose perceptrons have changed."""
    shutil.copytree("a", name)
    tensors, generator = load_file("a/model.safetensors"), torch.Generator().manual_seed(seed)
    for key, tensor in tensors.items():
        if ".mlp." in key:
            tensor += 0.01 * torch.randn(tensor.shape, generator=generator)
    save_file(tensors, f"{name}/model.safetensors", metadata={"format": "pt"})


def mixture(*experts: str, more: str = "") -> str:
    """A file that mixes models, each with a prompt of its own."""
    lines = [f"  - {{source_model: {name}, positive_prompts: [{PROMPTS[at % 2]}]}}" for at, name in enumerate(experts)]
    return "\n".join(["base_model: a", more, "experts:", *lines, ""])


@pytest.fixture
def merge(ftk_json: Ftk):
    def run(text: str, *words: str) -> dict[str, Any]:
        Path("moe.yaml").write_text(text)
        return ftk_json("merge", "moe.yaml", "--out", "out", *words)

    return run


@pytest.fixture
def refusal(merge, here: Path):
    def run(text: str, *words: str) -> str:
        Path("moe.yaml").write_text(text)
        before = sorted(here.iterdir())
        answer = merge(text, *words)
        assert answer["exit_code"] == 2, answer
        assert sorted(here.iterdir()) == before, "something was written"
        return str(answer["error"]["message"])

    return run


@torch.no_grad()
def logits(folder: str) -> torch.Tensor:
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    found: torch.Tensor = model.eval()(TOKENS).logits
    return found


@pytest.mark.parametrize("mode", ["hidden", "hidden_avg", "cheap_embed", "random", "uniform"])
def test_copies_of_one_model_are_the_model(merge, mode):
    answer = merge(mixture("a", "a", "a", more=f"gate_mode: {mode}"))
    torch.testing.assert_close(logits("out"), logits("a"), rtol=1e-4, atol=1e-5)
    assert answer["method"] == "moe"
    assert "all experts are copies of a" in answer["warnings"][0]
    assert "all experts are copies of a" in answer["stderr"]
    config = json.loads(Path("out/config.json").read_bytes())
    assert (config["model_type"], config["num_local_experts"], config["tie_word_embeddings"]) == ("mixtral", 3, True)
    assert Path("out/tokenizer.json").read_bytes() == Path("a/tokenizer.json").read_bytes()


@torch.no_grad()
def test_routers_are_the_base_s_states_at_the_last_token_of_prompts(merge):
    merge(
        "base_model: a\nexperts:\n"
        + "".join(
            f"  - source_model: {name}\n    positive_prompts: {json.dumps(positive)}\n    negative_prompts: [No!]\n"
            for name, positive in (("a", list(PROMPTS)), ("b", ["Something else"]))
        )
    )
    model = AutoModelForCausalLM.from_pretrained("a").eval()
    tokenizer = AutoTokenizer.from_pretrained("a")

    def state(prompt: str) -> torch.Tensor:
        ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        output = model(torch.tensor([ids]), output_hidden_states=True)
        return torch.stack([layer[0, -1] for layer in output.hidden_states[:-1]])

    rows = [(state(PROMPTS[0]) + state(PROMPTS[1])) / 2 - state("No!"), state("Something else") - state("No!")]
    out = load_file("out/model.safetensors")
    for layer in range(2):
        expected = torch.stack([row[layer] / row[layer].norm() for row in rows])
        torch.testing.assert_close(out[GATE.format(layer)], expected, rtol=1e-4, atol=1e-5)


def test_cheap_routers_are_sums_of_embeddings(merge):
    merge(mixture("a", "b", more="gate_mode: cheap_embed"))
    tokenizer, out = AutoTokenizer.from_pretrained("a"), load_file("out/model.safetensors")
    embedding = load_file("a/model.safetensors")["model.embed_tokens.weight"]
    for expert, prompt in enumerate(PROMPTS):
        ids = [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        row = embedding[ids].sum(0)
        for layer in range(2):
            torch.testing.assert_close(out[GATE.format(layer)][expert], row / row.norm(), rtol=1e-5, atol=1e-6)


def test_experts_are_their_models_and_the_rest_is_the_base_s(merge):
    merge(mixture("b", "a", more="dtype: bfloat16"))
    a, b, out = (load_file(f"{name}/model.safetensors") for name in ("a", "b", "out"))
    block = "model.layers.1.block_sparse_moe.experts"
    for name, projection in (("w1", "gate_proj"), ("w2", "down_proj"), ("w3", "up_proj")):
        source = f"model.layers.1.mlp.{projection}.weight"
        assert torch.equal(out[f"{block}.0.{name}.weight"], b[source].bfloat16())
        assert torch.equal(out[f"{block}.1.{name}.weight"], a[source].bfloat16())
    shared = [name for name in a if ".mlp." not in name]
    assert all(torch.equal(out[name], a[name].bfloat16()) for name in shared)
    assert json.loads(Path("out/config.json").read_bytes())["dtype"] == "bfloat16"


def test_noise_is_of_the_seed_and_of_each_expert(merge):
    text = "base_model: a\ngate_mode: uniform\nexperts:\n" + 2 * "  - {source_model: a, noise_scale: 0.1}\n"
    found = []
    for seed in ("1", "1", "2"):
        shutil.rmtree("out", ignore_errors=True)
        assert merge(text, "--seed", seed)["warnings"] == []
        found.append(load_file("out/model.safetensors"))
    first, same, other = found
    assert all(torch.equal(first[name], same[name]) for name in first)
    expert = "model.layers.0.block_sparse_moe.experts.{}.w1.weight"
    assert not torch.equal(first[expert.format(0)], other[expert.format(0)])
    assert not torch.equal(first[expert.format(0)], first[expert.format(1)])
    assert not torch.equal(first[GATE.format(0)], other[GATE.format(0)])


def test_a_shared_expert_of_qwen(merge):
    torch.manual_seed(0)
    config = AutoModelForCausalLM.from_pretrained("a").config
    sizes = {key: getattr(config, key) for key in ("hidden_size", "intermediate_size", "vocab_size")}
    sizes |= {"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    Qwen2ForCausalLM(Qwen2Config(**sizes)).save_pretrained("q")
    for file in Path("a").glob("tokenizer*"):
        shutil.copy(file, "q")
    experts = "experts: [{source_model: q, positive_prompts: [x]}, {source_model: q, positive_prompts: [y]}]\n"
    shared = "shared_experts: [{source_model: q, positive_prompts: [z], residual_scale: 0}]\n"
    merge(f"base_model: q\narchitecture: qwen\n{experts}{shared}")
    torch.testing.assert_close(logits("out"), logits("q"), rtol=1e-4, atol=1e-5)


def test_the_card_has_what_made_it(merge):
    merge(mixture("a", "b"))
    card = Path("out/README.md").read_text()
    assert sha256(Path("b/model.safetensors")) in card
    match = re.search(r"```yaml\n(.*?)```", card, re.DOTALL)
    assert match is not None
    Path("again.yaml").write_text(match[1])
    first, again = load_merge("moe.yaml"), load_merge("again.yaml")
    assert [one.positive for one in first.experts] == [one.positive for one in again.experts]
    assert "seed: 0" in match[1]


def test_plan_reads_headers_alone(ftk_json: Ftk, monkeypatch):
    monkeypatch.setattr("ftk.runs.merging.routers.mixing", lambda *given, **more: pytest.fail("the base was loaded"))
    Path("moe.yaml").write_text(mixture("a", "b"))
    before = sorted(Path().iterdir())
    plan = ftk_json("merge", "moe.yaml", "--plan")
    assert sorted(Path().iterdir()) == before
    by_name = {one["name"]: one for one in plan["tensors"]}
    assert by_name[GATE.format(1)]["sources"] == []
    assert by_name[GATE.format(1)]["shape"] == [2, 16]
    expert = by_name["model.layers.0.block_sparse_moe.experts.1.w2.weight"]
    assert expert["sources"] == [{"model": "b", "tensor": "model.layers.0.mlp.down_proj.weight"}]
    assert plan["output_bytes"] == sum(4 * torch.Size(one["shape"]).numel() for one in plan["tensors"])


def test_routers_that_are_alike_are_told(merge):
    answer = merge(mixture("a", "b").replace(PROMPTS[1], f"Well. {PROMPTS[0]}"))
    assert "are so alike for all experts" in answer["warnings"][-1]


def test_it_trains_with_routers_and_their_balance(merge, ftk_json: Ftk, rows_file: Path):
    merge(mixture("a", "b", more="gate_mode: uniform\nexperts_per_token: 1"))
    Path("train.yaml").write_text(
        f"model: out\ntask: {{name: sft, router_loss_weight: 0}}\ndata: {{train: {rows_file}, max_length: 128}}\n"
        "tuning: full\ntraining: {max_steps: 2, batch_size: 4, learning_rate: 1.0e-2, precision: fp32, log_every: 1}\n"
    )
    before = load_file("out/model.safetensors")
    found = {}
    for weight in ("0", "10"):
        words = (f"task.router_loss_weight={weight}", f"output.folder=run{weight}")
        answer = ftk_json("train", "train.yaml", *words)
        assert answer["exit_code"] == 0, answer
        assert answer["steps"] == 2
        found[weight] = load_file(f"run{weight}/model/model.safetensors")
    assert found["10"].keys() == before.keys()
    for layer in range(2):
        gate = GATE.format(layer)
        assert not torch.equal(found["10"][gate], before[gate])
        assert not torch.equal(found["10"][gate], found["0"][gate])
    assert torch.isfinite(logits("run10/model")).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("source_model: b", "sauce_model: b"), "experts.1.sauce_model is not a key of experts.1"),
        (("base_model: a", "base_model: a\nmerge_method: linear"), "merge_method is not a key of a merge"),
        (("base_model: a", "base_model: nowhere/at/all"), "there is no folder nowhere/at/all"),
        (("base_model: a", "base_model: a\nshared_experts: [{source_model: a, positive_prompts: [x]}]"), "no shared"),
        (("base_model: a", "base_model: a\narchitecture: qwen3"), "these models make a mixtral"),
        (("base_model: a", "base_model: a\nexperts_per_token: 5"), "expected 1 to the number of experts, 2"),
    ],
)
def test_what_cannot_be_mixed(refusal, change, message):
    assert message in refusal(mixture("a", "b").replace(*change))


def test_experts_of_another_size_or_architecture(refusal):
    tensors = load_file("b/model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    save_file({**tensors, name: torch.zeros(8, 16)}, "b/model.safetensors", metadata={"format": "pt"})
    message = refusal(mixture("a", "b"))
    assert f"{name} is [32, 16] in a and [8, 16] in b" in message
    del tensors[name]
    save_file(tensors, "b/model.safetensors", metadata={"format": "pt"})
    assert f"a has {name}, and b lacks it" in refusal(mixture("a", "b"))
    config = json.loads(Path("b/config.json").read_bytes())
    Path("b/config.json").write_text(json.dumps({**config, "model_type": "gemma"}))
    assert "of which no mixture can be made" in refusal(mixture("a", "b"))


def test_a_source_that_is_not_finite_is_named_and_nothing_is_left(refusal):
    tensors = load_file("b/model.safetensors")
    tensors["model.layers.0.mlp.up_proj.weight"][3, 4] = float("nan")
    save_file(tensors, "b/model.safetensors", metadata={"format": "pt"})
    assert "model.layers.0.mlp.up_proj.weight in" in refusal(mixture("a", "b"))


def test_an_output_that_is_there(refusal):
    Path("out").mkdir()
    assert "exists already" in refusal(mixture("a", "b"))
