"""`ftk merge config.yaml`: tensors, configuration, card, and every bad input."""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml
from merge_models import VOCABULARY, config, read_model, weights, write_model, write_tensors
from run_ftk import Ftk, start_ftk
from transformers import AutoModelForCausalLM

LINEAR = """\
merge_method: linear
models:
  - {model: a, parameters: {weight: 1}}
  - {model: b, parameters: {weight: 3}}
"""
ONE_SLICE = """\
merge_method: passthrough
slices:
  - sources: [{{model: a, layer_range: {first}}}]
  - sources: [{{model: b, layer_range: {second}}}]
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with models a and b of one family."""
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "a", 1)
    write_model(tmp_path / "b", 2)
    return tmp_path


@pytest.fixture
def merge(ftk_json: Ftk):
    def run(text: str, *words: str):
        Path("merge.yaml").write_text(text)
        return ftk_json("merge", "merge.yaml", "--out", "out", *words)

    return run


@pytest.fixture
def refusal(merge, here: Path):
    def run(text: str, *words: str) -> str:
        before = sorted(here.iterdir())
        answer = merge(text, *words)
        assert answer["exit_code"] == 2, answer
        after = sorted(path for path in here.iterdir() if path.name != "merge.yaml")
        assert after == [path for path in before if path.name != "merge.yaml"], "something was written"
        return str(answer["error"]["message"])

    return run


def close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-6, atol=1e-6)


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


def test_gradients_run_over_the_layers_and_are_at_their_start_elsewhere(merge):
    merge(
        "merge_method: linear\nparameters: {normalize: false}\nmodels:\n"
        "  - {model: a, parameters: {weight: [0, 2]}}\n  - {model: b, parameters: {weight: {filter: mlp, value: 1}}}\n"
        "  - {model: b, parameters: {weight: 0}}\n".replace(
            "{filter: mlp, value: 1}", "[{filter: mlp, value: 1}, {value: 0}]"
        )
    )
    a, b, out = weights(1), weights(2), read_model(Path("out"))
    for layer in range(3):
        name = f"model.layers.{layer}.self_attn.q_proj.weight"
        torch.testing.assert_close(out[name], layer * a[name])
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        torch.testing.assert_close(out[name], layer * a[name] + b[name])
    assert not out["model.norm.weight"].any()


def test_a_base_that_is_not_listed_is_one(merge):
    merge("merge_method: task_arithmetic\nbase_model: a\nmodels: [{model: b, parameters: {weight: -1}}]\n")
    a, b = weights(1), weights(2)
    close(read_model(Path("out")), {name: 2 * a[name] - b[name] for name in a})


def test_slices_take_layers_and_embeddings_of_the_first_and_head_of_the_last(merge):
    merge(ONE_SLICE.format(first="[0, 2]", second="[1, 3]"))
    a, b, out = weights(1), weights(2), read_model(Path("out"))
    assert json.loads(Path("out/config.json").read_text())["num_hidden_layers"] == 4
    for layer, (source, index) in enumerate([(a, 0), (a, 1), (b, 1), (b, 2)]):
        for name in ("self_attn.q_proj", "mlp.down_proj", "input_layernorm"):
            assert torch.equal(
                out[f"model.layers.{layer}.{name}.weight"], source[f"model.layers.{index}.{name}.weight"]
            )
    assert torch.equal(out["model.embed_tokens.weight"], a["model.embed_tokens.weight"])
    assert torch.equal(out["lm_head.weight"], b["lm_head.weight"])
    assert torch.equal(out["model.norm.weight"], b["model.norm.weight"])
    AutoModelForCausalLM.from_pretrained("out")


def test_slices_of_several_sources_are_merged_with_parameters_of_their_own(merge):
    merge(
        """\
merge_method: linear
slices:
  - sources:
      - {model: a, layer_range: [0, 2]}
      - {model: b, layer_range: [1, 3], parameters: {weight: 3}}
    parameters: {weight: 1}
  - sources:
      - {model: b, layer_range: [0, 1]}
parameters: {weight: 5}
"""
    )
    a, b, out = weights(1), weights(2), read_model(Path("out"))
    name = "self_attn.k_proj.weight"
    for layer in range(2):
        expected = (a[f"model.layers.{layer}.{name}"] + 3 * b[f"model.layers.{layer + 1}.{name}"]) / 4
        torch.testing.assert_close(out[f"model.layers.{layer}.{name}"], expected)
    torch.testing.assert_close(out[f"model.layers.2.{name}"], b[f"model.layers.0.{name}"])


def test_passthrough_scales(merge):
    merge(
        "merge_method: passthrough\nslices:\n  - sources:\n      - model: a\n        layer_range: [0, 1]\n"
        "        parameters: {scale: [{filter: o_proj, value: 0}, {value: 1}]}\n"
    )
    out = read_model(Path("out"))
    assert not out["model.layers.0.self_attn.o_proj.weight"].any()
    assert torch.equal(
        out["model.layers.0.self_attn.q_proj.weight"], weights(1)["model.layers.0.self_attn.q_proj.weight"]
    )


@pytest.mark.parametrize(("drop", "expected"), [(None, [0, 1, 2, 1, 2, 3]), (2, [0, 1, 2, 3])])
def test_depth_upscale_stacks_a_model_upon_itself(merge, drop, expected):
    write_model(Path("four"), 3, num_layers=4)
    parameters = "" if drop is None else f"parameters: {{drop: {drop}}}\n"
    merge(f"merge_method: depth_upscale\nmodels: [{{model: four}}]\n{parameters}")
    four, out = weights(3, num_layers=4), read_model(Path("out"))
    assert json.loads(Path("out/config.json").read_text())["num_hidden_layers"] == len(expected)
    for layer, index in enumerate(expected):
        name = "mlp.up_proj.weight"
        assert torch.equal(out[f"model.layers.{layer}.{name}"], four[f"model.layers.{index}.{name}"])


def test_lists_of_the_configuration_follow_their_layers(merge):
    kinds = ["full_attention", "sliding_attention", "other"]
    write_tensors(Path("a"), weights(1), {**config(), "layer_types": kinds, "mlp_only_layers": [2]})
    merge("merge_method: depth_upscale\nmodels: [{model: a}]\nparameters: {drop: 1}\n")
    found = json.loads(Path("out/config.json").read_text())
    assert found["layer_types"] == ["full_attention", "sliding_attention", "sliding_attention", "other"]
    assert found["mlp_only_layers"] == [3]


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


def test_differing_shapes_are_told_with_the_first_that_differ(refusal):
    tensors = weights(2)
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(3, 4)
    write_tensors(Path("b"), tensors, config())
    message = refusal(LINEAR)
    assert "model.layers.1.mlp.up_proj.weight is [16, 8] in a and [3, 4] in b" in message


def test_differing_architectures(refusal):
    write_model(Path("b"), 2, num_layers=4)
    message = refusal(LINEAR)
    assert "a and b differ in architecture" in message
    assert "9 tensors are in one of the models only, such as model.layers.3." in message


def test_differing_vocabularies_ask_for_a_choice(refusal):
    write_model(Path("b"), 2, vocabulary=VOCABULARY + 4)
    message = refusal(LINEAR)
    assert "model.embed_tokens.weight is [12, 8] in a and [16, 8] in b" in message
    assert "tokenizer_source: base" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LINEAR.replace("3", "-1"), "weights 1, -1 sum to zero"),
        (LINEAR.replace("3", ".inf"), "weight is .inf, expected a number"),
        (
            "merge_method: ties\nbase_model: a\nmodels: [{model: b, parameters: {weight: 1}}]\n"
            "parameters: {lambda: .nan}",
            "parameters.lambda is .nan: Input should be a finite number",
        ),
        ("merge_method: ties\nmodels: [{model: a, parameters: {weight: 1}}]", "ties needs base_model"),
        (
            "merge_method: ties\nbase_model: a\nmodels: [{model: b, parameters: {weight: 1, density: 2}}]",
            "density is 2, expected a number from 0 to 1",
        ),
        (ONE_SLICE.format(first="[0, 2]", second="[1, 9]"), "layer_range is [1, 9], and b has 3 layers: 0 to 2"),
        (LINEAR.replace("model: b", "model: c"), "c"),
        (LINEAR.replace(", parameters: {weight: 3}", ""), "linear needs weight for b"),
        ("base_model: nowhere\n" + LINEAR, "nowhere"),
        (LINEAR + "tokenizer_source: base\n", "tokenizer"),
        (LINEAR + "chat_template: nonsense\n", "chat_template is 'nonsense'"),
        ("merge_method: depth_upscale\nmodels: [{model: a}]\nparameters: {drop: 3}\n", "nothing would be left"),
        (
            "merge_method: linear\nslices: [{sources: [{model: a, layer_range: [0, 1], parameters: {weight: 1}}, "
            "{model: b, layer_range: [0, 2], parameters: {weight: 1}}]}]",
            "different numbers of layers: a [0, 1], b [0, 2]",
        ),
        (
            "merge_method: ties\nbase_model: a\n"
            "slices: [{sources: [{model: b, layer_range: [0, 1], parameters: {weight: 1}}]}]",
            "base_model a is not among the sources of this slice",
        ),
        ("merge_method: linear\nbase_model: a\nmodels: [{model: b, parameters: {weight: 1}}]", "linear has no base"),
    ],
)
def test_what_cannot_be_merged(refusal, text, message):
    assert message in refusal(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_source_that_is_not_finite_is_named_and_nothing_is_left(refusal, value):
    tensors = weights(2)
    tensors["model.norm.weight"][3] = value
    write_tensors(Path("b"), tensors, config())
    message = refusal(LINEAR)
    assert "model.norm.weight in" in message
    assert "b/model.safetensors holds 1 values" in message


def test_a_result_that_is_not_finite_fails(merge):
    tensors = {name: tensor * 1e5 for name, tensor in weights(2).items()}
    write_tensors(Path("b"), tensors, config())
    answer = merge(LINEAR + "out_dtype: float16\n")
    assert answer["exit_code"] == 4
    assert "came out with NaN or infinity" in answer["error"]["message"]
    assert not Path("out").exists()


def test_a_shard_cut_short_and_a_pickle(refusal):
    os.truncate("b/model.safetensors", 1000)
    assert "not copied or downloaded to its end" in refusal(LINEAR)
    Path("b/model.safetensors").rename("b/pytorch_model.bin")
    assert "pickle" in refusal(LINEAR)


def test_quantized_weights_are_refused(refusal):
    write_tensors(Path("b"), weights(2), {**config(), "quantization_config": {"quant_method": "bitsandbytes"}})
    assert "b are quantized (bitsandbytes)" in refusal(LINEAR)


@pytest.mark.parametrize("out", ["a", "a/inner", "merge.yaml", "merge.yaml/inner"])
def test_an_output_that_is_there_or_within_an_input(ftk_json: Ftk, out, here: Path):
    Path("merge.yaml").write_text(LINEAR)
    before = sorted(here.rglob("*"))
    answer = ftk_json("merge", "merge.yaml", "--out", out)
    assert answer["exit_code"] == 2
    assert out in answer["error"]["message"]
    assert sorted(here.rglob("*")) == before


def test_too_little_disk(refusal, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 10, 0))
    assert "free" in refusal(LINEAR)


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


def test_flags_that_do_not_go_together(ftk_json: Ftk):
    Path("merge.yaml").write_text(LINEAR)
    for words, message in (
        (("merge.yaml",), "--out FOLDER"),
        (("merge.yaml", "--out", "out", "--base", "a"), "--base is of adapters"),
        (("merge.yaml", "--out", "out", "--how", "ties", "--no-verify"), "--how and --no-verify are of adapters"),
        (("a", "--out", "out", "--as-adapter", "--text", "x"), "--text is of adapters folded into a base"),
        (("a", "--out", "out", "--no-verify", "--text", "x"), "--no-verify leaves that out"),
        ((), "name a merge's YAML file"),
        (("a", "--plan"), "--out FOLDER"),
        (("a", "--out", "out", "--plan"), "--plan is of merges by a YAML file"),
        (("merge.yaml", "--out", "out", "--shard-size", "5 apples"), "no size of a file"),
    ):
        answer = ftk_json("merge", *words)
        assert answer["exit_code"] == 2
        assert message in answer["error"]["message"]
