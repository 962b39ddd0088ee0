"""`ftk merge config.yaml`: every bad input."""

import os
from pathlib import Path

import pytest
import torch
from adapter_files import make_adapter
from merge_models import LINEAR, ONE_SLICE, VOCABULARY, config, weights, write_model, write_tensors
from run_ftk import Ftk

pytestmark = pytest.mark.usefixtures("here")


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
        (LINEAR.replace("3", "1" + "0" * 400), "0, expected a number"),
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


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_too_little_disk_for_the_models_that_adapters_are_folded_into(refusal, monkeypatch):
    """There is room for one of the three models that would lie on the disk at once."""
    import shutil

    size = Path("a/model.safetensors").stat().st_size
    for name in ("one", "two"):
        make_adapter(Path("a"), Path(name))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(9 * size, 7 * size, 2 * size))
    folded: list[object] = []
    monkeypatch.setattr(
        "ftk.runs.merging.adapters.merge_adapters", lambda *arguments, **options: folded.append(arguments)
    )
    assert "free" in refusal(LINEAR.replace("model: a", "model: a+one").replace("model: b", "model: a+two"))
    assert not folded


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
        (("merge.yaml", "--out", "out", "--shard-size", "5 apples"), "does not say a size"),
    ):
        answer = ftk_json("merge", *words)
        assert answer["exit_code"] == 2
        assert message in answer["error"]["message"]
