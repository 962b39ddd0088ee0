"""mergekit's files are read as they are; everything wrong in one is told at once, with its line."""

from pathlib import Path

import pytest
import torch

from ftk.core.errors import RecipeError
from ftk.merging import methods
from ftk.merging.configuration import Merge, ModelName
from ftk.merging.parameters import Filtered
from ftk.recipe.merge_file import load_merge
from ftk.recipe.merge_resolved import resolved_merge


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_and_load(text: str) -> Merge:
        Path("merge.yaml").write_text(text)
        return load_merge("merge.yaml", environment={})

    return write_and_load


@pytest.fixture
def refusal(load):
    def lines(text: str) -> list[str]:
        with pytest.raises(RecipeError) as caught:
            load(text)
        return str(caught.value).splitlines()

    return lines


GRADIENT_SLERP = """\
slices:
  - sources:
      - model: psmathur/orca_mini_v3_13b
        layer_range: [0, 40]
      - model: garage-bAInd/Platypus2-13B
        layer_range: [0, 40]
merge_method: slerp
base_model: psmathur/orca_mini_v3_13b
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5 # fallback for rest of tensors
dtype: float16
"""
TIES = """\
models:
  - model: psmathur/orca_mini_v3_13b
    parameters:
      density: [1, 0.7, 0.1] # density gradient
      weight: 1.0
  - model: garage-bAInd/Platypus2-13B
    parameters:
      density: 0.5
      weight: [0, 0.3, 0.7, 1] # weight gradient
  - model: WizardLM/WizardMath-13B-V1.0@main
    parameters:
      density: 0.33
      weight:
        - filter: mlp
          value: 0.5
        - value: 0
merge_method: ties
base_model: TheBloke/Llama-2-13B-fp16
parameters:
  normalize: true
  int8_mask: true
dtype: float16
tokenizer_source: union
"""
PASSTHROUGH = """\
slices:
  - sources:
    - model: a
      layer_range: [0, 24]
  - sources:
    - model: b
      layer_range: [20, 40]
      parameters:
        scale:
          - {filter: o_proj, value: 0.0}
          - {value: 1.0}
merge_method: passthrough
dtype: bfloat16
out_dtype: float32
"""
TOKENS = """\
merge_method: linear
models:
  - {model: a+lora, parameters: {weight: 1}}
  - model: {model: {path: b, revision: main}, lora: {path: c}}
    parameters: {weight: 1}
tokenizer:
  source: union
  tokens:
    <|im_start|>: {source: b}
    <|special|>: {source: a, force: true}
    <|renamed|>: {source: {kind: model_token, model: a, token: "<|old|>"}}
    <|unused|>: {source: {kind: zero}}
  pad_to_multiple_of: 64
chat_template: chatml
seed: 7
"""
MODULES = """\
merge_method: linear
modules:
  text_decoder:
    slices:
      - sources:
          - {model: a, layer_range: [0, 2], parameters: {weight: 1}}
    parameters: {normalize: false}
  vision_tower:
    models:
      - {model: a, parameters: {weight: 1}}
"""


def test_gradients_and_filters(load):
    merge = load(GRADIENT_SLERP)
    (one,) = merge.modules[0].slices
    assert merge.base == one.sources[0].model == ModelName("psmathur/orca_mini_v3_13b")
    assert [source.layers for source in one.sources] == [(0, 40), (0, 40)]
    assert merge.parameters["t"][0] == Filtered("self_attn", (0, 0.5, 0.3, 0.7, 1))
    assert merge.parameters["t"][2] == Filtered(None, 0.5)
    assert merge.dtype == torch.float16


def test_whole_models_with_parameters_of_their_own(load):
    merge = load(TIES)
    sources = merge.modules[0].slices[0].sources
    assert sources[0].parameters == {"density": (1, 0.7, 0.1), "weight": 1.0}
    assert sources[2].model == ModelName("WizardLM/WizardMath-13B-V1.0", revision="main")
    assert merge.parameters == {"normalize": True}
    assert merge.tokens is not None
    assert merge.tokens.source == "union"
    assert merge.models()[0] == ModelName("TheBloke/Llama-2-13B-fp16")


def test_tokens_adapters_and_mappings_of_models(load):
    merge = load(TOKENS)
    assert merge.sources() == [ModelName("a", adapter="lora"), ModelName("b", "main", "c")]
    assert merge.tokens is not None
    rows = merge.tokens.rows
    assert rows["<|special|>"].force
    assert (rows["<|renamed|>"].source, rows["<|renamed|>"].token) == (ModelName("a"), "<|old|>")
    assert rows["<|unused|>"].source == "zero"
    assert merge.tokens.pad_to_multiple_of == 64
    assert merge.seed == 7


@pytest.mark.parametrize(
    "text",
    [
        GRADIENT_SLERP,
        TIES,
        PASSTHROUGH,
        TOKENS,
        MODULES,
        "merge_method: depth_upscale\nmodels: [{model: a}]\nparameters: {drop: 2}\n",
    ],
)
def test_the_resolved_file_loads_to_the_same_merge_with_defaults_filled_in(load, text):
    merge = load(text)
    again = load(resolved_merge(merge))
    assert again.sources() == merge.sources()
    assert (again.tokens, again.dtype, again.seed, again.upscale) == (
        merge.tokens,
        merge.dtype,
        merge.seed,
        merge.upscale,
    )
    assert resolved_merge(again) == resolved_merge(merge)
    assert merge.parameters.items() <= again.parameters.items()


def test_every_unknown_key_is_told_with_its_line_and_the_nearest_name(refusal):
    text = """\
merge_metod: linear
models:
  - model: a
    parametrs: {weight: 1}
  - {modle: b}
"""
    assert refusal(text)[0].startswith("merge.yaml:1: merge_metod is not a key of a merge. Did you mean merge_method?")
    assert refusal(text.replace("metod", "method")) == [
        "merge.yaml:4: models.0.parametrs is not a key of models.0. Did you mean parameters?",
        "merge.yaml:5: models.1.modle is not a key of models.1. Did you mean model?",
        "merge.yaml:5: models.1.model is missing",
    ]


def test_parameters_are_the_methods_own(refusal):
    text = """\
merge_method: ties
base_model: a
models:
  - model: b
    parameters: {wieght: 1, normalize: true}
parameters:
  densty: 0.5
  density: [0.1, 1.5]
  weight: much
  normalize: 3
"""
    lines = refusal(text)
    assert lines[0] == "merge.yaml:5: models.0.parameters.wieght is not a parameter of ties. Did you mean weight?"
    assert "normalize is of the whole merge" in lines[1]
    assert lines[2] == "merge.yaml:7: parameters.densty is not a parameter of ties. Did you mean density?"
    assert lines[3] == "merge.yaml:8: parameters.density is 1.5, expected a number from 0 to 1"
    assert lines[4].startswith("merge.yaml:9: parameters.weight is 'much', expected a number")
    assert lines[5].startswith("merge.yaml:10: parameters.normalize is 3")
    assert len(lines) == 6


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("models: [{model: a}]", "merge_method is missing"),
        ("merge_method:\nmodels: [{model: a}]", "merge_method is missing"),
        ("merge_method: linar\nmodels: [{model: a}]", "Did you mean linear?"),
        ("merge_method: linear", "expected one of models, slices, modules, found none"),
        ("merge_method: linear\nmodels: [{model: a}]\nslices: []", "found models and slices"),
        ("merge_method: linear\nmodels: []", "models is empty, expected a list"),
        ("merge_method: linear\nmodels: [{model: a}]\ndtype: bf16", "dtype is 'bf16', expected one of float16"),
        (
            "merge_method: passthrough\nslices: [{sources: [{model: a, layer_range: [4, 2]}]}]",
            "layer_range is [4, 2], expected [first, end]",
        ),
        ("merge_method: passthrough\nslices: [{sources: [{model: a}]}]", "slices.0.sources.0.layer_range is missing"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: []}}]", "an empty list"),
        ("merge_method: linear\nmodels: [{model: a, parameters: {weight: [{filter: x}]}}]", "a filter without a value"),
        (
            "merge_method: linear\nmodels: [{model: a}]\ntokenizer: {}\ntokenizer_source: base",
            "tokenizer and tokenizer_source say the same",
        ),
        ("merge_method: linear\nmerge_method: slerp\nmodels: [{model: a}]", "merge_method is given twice"),
        ("merge_method: depth_upscale\nmodels: [{model: a}, {model: b}]", "expects models with one model"),
    ],
)
def test_what_is_no_merge(refusal, text, message):
    assert message in "\n".join(refusal(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge_methd: linear\nmodels: [{model: a}]", "merge_methd is not a key of a merge. Did you mean merge_method"),
        ("[a]", "the file is a list, expected a mapping"),
    ],
)
def test_one_mistake_is_told_once(refusal, text, message):
    (line,) = refusal(text)
    assert message in line


def test_a_file_that_is_not_there():
    with pytest.raises(RecipeError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load_merge("nowhere.yaml")


def test_every_file_of_a_method_is_named_and_finds_its_settings():
    folder = Path(methods.__file__).parent
    assert sorted(methods.NAMES) == sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    for name in methods.NAMES:
        section = methods.method_named(name)
        assert section.model_fields["name"].default == name
        assert {"check", "merge", "per_model", "needs_base", "num_models"} <= set(dir(section))
