"""`ftk merge config.yaml` by layers: gradients, slices, and models stacked upon themselves."""

import json
from pathlib import Path

import pytest
import torch
from merge_models import ONE_SLICE, config, read_model, weights, write_model, write_tensors
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.usefixtures("here")


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
