"""`ftk merge config.yaml`: tensors, configuration and card."""

import hashlib
import json
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from merge_models import LINEAR, ONE_SLICE, close, config, read_model, weights, write_model, write_tensors
from run_ftk import Ftk, start_ftk
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.usefixtures("here")


def test_linear_is_the_weighted_mean_and_transformers_loads_it(merge):
    answer = merge(LINEAR)
    a, b = weights(1), weights(2)
    close(read_model(Path("out")), {name: (a[name] + 3 * b[name]) / 4 for name in a})
    assert answer["num_tensors"] == len(a)
    assert answer["output_bytes"] == sum(tensor.nbytes for tensor in a.values())
    assert answer["warnings"] == []
    model = AutoModelForCausalLM.from_pretrained("out")
    torch.testing.assert_close(model.lm_head.weight.data, (a["lm_head.weight"] + 3 * b["lm_head.weight"]) / 4)
    assert Path("out/config.json").read_bytes() == Path("a/config.json").read_bytes()


def test_a_base_that_is_not_listed_is_one(merge):
    merge("merge_method: task_arithmetic\nbase_model: a\nmodels: [{model: b, parameters: {weight: -1}}]\n")
    a, b = weights(1), weights(2)
    close(read_model(Path("out")), {name: 2 * a[name] - b[name] for name in a})


def test_a_tied_head_is_the_embedding_where_another_model_has_one(merge):
    write_model(Path("b"), 2, tied=True)
    merge(LINEAR)
    a, b, out = weights(1), weights(2, tied=True), read_model(Path("out"))
    expected = (a["lm_head.weight"] + 3 * b["model.embed_tokens.weight"]) / 4
    torch.testing.assert_close(out["lm_head.weight"], expected)


def test_tied_models_stay_tied_even_where_a_copy_of_the_head_is_stored(merge):
    for name, seed in (("a", 1), ("b", 2)):
        tensors = weights(seed, tied=True)
        head = {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()} if name == "b" else {}
        write_tensors(Path(name), tensors | head, config(tied=True))
    merge(LINEAR)
    assert "lm_head.weight" not in read_model(Path("out"))
    model = AutoModelForCausalLM.from_pretrained("out")
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize(
    ("line", "dtype"),
    [("", torch.float32), ("dtype: bfloat16", torch.bfloat16), ("out_dtype: float16", torch.float16)],
)
def test_dtypes(merge, line, dtype):
    write_model(Path("b"), 2, dtype=torch.bfloat16)
    merge(f"{LINEAR}{line}\n")
    a, b, out = weights(1), weights(2), read_model(Path("out"))
    assert {tensor.dtype for tensor in out.values()} == {dtype}
    assert json.loads(Path("out/config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    name = "model.layers.1.mlp.up_proj.weight"
    inputs = (a[name].bfloat16() if dtype == torch.bfloat16 else a[name], b[name].bfloat16())
    torch.testing.assert_close(out[name], ((inputs[0].float() + 3 * inputs[1].float()) / 4).to(dtype))


def test_shards_have_the_size_asked_for_and_files_that_do_not_change_are_copied(merge):
    Path("a/generation_config.json").write_text('{"eos_token_id":   7}')
    Path("a/model.py").write_text("x = 1")
    merge(LINEAR, "--shard-size", "2KB")
    assert len(list(Path("out").glob("*.safetensors"))) > 3
    assert Path("out/generation_config.json").read_text() == '{"eos_token_id":   7}'
    assert Path("out/model.py").read_text() == "x = 1"
    AutoModelForCausalLM.from_pretrained("out")


def test_what_is_random_goes_by_the_seed_and_not_by_what_else_is_merged(merge):
    text = (
        "merge_method: dare_linear\nbase_model: a\nseed: 5\n"
        "models: [{model: b, parameters: {weight: 1, density: 0.5}}]\n"
    )
    merge(text)
    first = read_model(Path("out"))
    Path("out").rename("first")
    merge(text)
    close(read_model(Path("out")), first)
    Path("out").rename("second")
    merge(text, "--seed", "6")
    assert not torch.equal(read_model(Path("out"))["model.norm.weight"], first["model.norm.weight"])


def test_the_card_has_configuration_hashes_and_licences(merge):
    Path("a/README.md").write_text("---\nlicense: mit\n---\n")
    Path("b/README.md").write_text("---\nlicense: apache-2.0\n---\n")
    merge(LINEAR)
    card = Path("out/README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert header["base_model"] == ["a", "b"]
    assert header["license_name"] == "mit and apache-2.0"
    assert "| `b` | apache-2.0 |" in card
    assert hashlib.sha256(Path("b/model.safetensors").read_bytes()).hexdigest() in card
    resolved = yaml.safe_load(card.split("```yaml")[1].split("```")[0])
    assert resolved["parameters"] == {"normalize": True}
    assert resolved["models"][1] == {"model": "b", "parameters": {"weight": 3.0}}


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_an_adapter_is_folded_into_its_base_first(merge):
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(AutoModelForCausalLM.from_pretrained("a"), LoraConfig(r=2, target_modules=["q_proj"]))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    model.save_pretrained("adapter")
    for named in ("adapter", "a+adapter"):
        answer = merge(LINEAR.replace("model: a,", f"model: {named},"))
        assert answer["exit_code"] == 0, answer
        out = read_model(Path("out"))
        Path("out").rename(f"out-of-{named}")
        name = "model.layers.0.self_attn.q_proj.weight"
        layer = model.base_model.model.model.layers[0].self_attn.q_proj
        folded = weights(1)[name] + layer.get_delta_weight("default").detach()
        torch.testing.assert_close(out[name], (folded + 3 * weights(2)[name]) / 4)
        card = Path(f"out-of-{named}/README.md").read_text()
        for file in ("a/model.safetensors", "adapter/adapter_model.safetensors", "b/model.safetensors"):
            assert hashlib.sha256(Path(file).read_bytes()).hexdigest() in card
    assert not list(Path().glob(".*"))


def test_models_that_are_no_kin_are_told_by_name(merge):
    strange = {name: torch.randn_like(tensor) for name, tensor in weights(2).items()}
    write_tensors(Path("b"), strange, config())
    answer = merge(LINEAR)
    (warning,) = answer["warnings"]
    assert warning.startswith("b does not come from the same base as a")
    assert warning in answer["stderr"]
    assert warning in Path("out/README.md").read_text()


def test_the_plan_says_what_would_be_done_and_does_nothing(ftk_json: Ftk):
    Path("merge.yaml").write_text(ONE_SLICE.format(first="[0, 2]", second="[1, 3]"))
    answer = ftk_json("merge", "merge.yaml", "--plan")
    assert not Path("out").exists()
    size = sum(tensor.nbytes for tensor in weights(1).values())
    assert answer["models"] == [{"model": "a", "input_bytes": size}, {"model": "b", "input_bytes": size}]
    tensors = {one["name"]: one for one in answer["tensors"]}
    moved = tensors["model.layers.2.mlp.up_proj.weight"]
    assert moved["method"] == "passthrough"
    assert moved["sources"][0]["model"] == "b"
    assert moved["sources"][0]["tensor"] == "model.layers.1.mlp.up_proj.weight"
    assert answer["output_bytes"] == sum(4 * torch.Size(one["shape"]).numel() for one in answer["tensors"])
    assert answer["peak_bytes"] > 0


def test_modules_are_merged_each_in_its_way(merge):
    for name, seed in (("a", 1), ("b", 2)):
        inner = {f"language_model.{key}": tensor for key, tensor in weights(seed).items()}
        tower = {f"vision_tower.layers.{n}.weight": torch.full((2,), float(seed)) for n in range(2)}
        settings = {"model_type": "x", "text_config": config(), "vision_config": {"num_hidden_layers": 2}}
        write_tensors(Path(name), {**inner, **tower}, settings)
    merge(
        """\
merge_method: linear
modules:
  text_decoder:
    slices:
      - sources: [{model: b, layer_range: [1, 3], parameters: {weight: 1}}]
  vision_tower:
    models: [{model: a}, {model: b}]
    parameters: {weight: 1}
"""
    )
    out = read_model(Path("out"))
    assert out["vision_tower.layers.1.weight"].tolist() == [1.5, 1.5]
    name = "mlp.up_proj.weight"
    assert torch.equal(out[f"language_model.model.layers.0.{name}"], weights(2)[f"model.layers.1.{name}"])
    assert json.loads(Path("out/config.json").read_text())["text_config"]["num_hidden_layers"] == 2


def test_killed_in_the_middle_nothing_is_left_after_the_next_run(here: Path, ftk_json: Ftk):
    for name, seed in (("a", 1), ("b", 2)):
        write_model(here / name, seed, num_layers=300)
    Path("merge.yaml").write_text(LINEAR)
    process = start_ftk("merge", "merge.yaml", "--out", "out")
    while process.poll() is None and not list(here.glob(".out.ftk-tmp-*/model.safetensors")):
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not Path("out").exists()
    assert list(here.glob(".out.ftk-tmp-*"))
    other = here / f".other.ftk-tmp-{process.pid}"
    other.mkdir()
    assert ftk_json("merge", "merge.yaml", "--out", "out")["exit_code"] == 0
    assert [path.name for path in here.glob(".*")] == [other.name]
