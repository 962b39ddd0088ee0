"""mergekit-moe's files are read as they are; everything wrong in one is told at once, with its line."""

from pathlib import Path

import pytest
import torch

from ftk.core.errors import RecipeError
from ftk.merging.configuration import ModelName
from ftk.merging.mixture import Mixture
from ftk.recipe.merge_file import load_merge
from ftk.recipe.moe_file import resolved_mixture

CLOWN_CAR = """\
base_model: path/to/self_attn_donor
gate_mode: hidden # one of "hidden", "cheap_embed", or "random"
dtype: bfloat16 # output dtype (float32, float16, or bfloat16)
experts:
  - source_model: expert_model_1
    positive_prompts:
      - "This is a prompt that expert_model_1 excels at"
    negative_prompts:
      - "This is a prompt expert_model_1 should not be used for"
  - source_model: expert_model_2@v1
    positive_prompts: ["Das ist ein Satz auf Deutsch."]
    noise_scale: 0.01
shared_experts:
  - source_model: model_name
    positive_prompts: [blah blah]
    residual_scale: 0.1
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write_and_load(text: str) -> Mixture:
        Path("moe.yaml").write_text(text)
        found = load_merge("moe.yaml", environment={})
        assert isinstance(found, Mixture)
        return found

    return write_and_load


def test_the_documented_file(load):
    mixture = load(CLOWN_CAR)
    assert mixture.base == ModelName("path/to/self_attn_donor")
    assert (mixture.gate_mode, mixture.dtype, mixture.experts_per_token) == ("hidden", torch.bfloat16, 2)
    first, second = mixture.experts
    assert first.positive == ("This is a prompt that expert_model_1 excels at",)
    assert first.negative == ("This is a prompt expert_model_1 should not be used for",)
    assert (second.model, second.noise_scale) == (ModelName("expert_model_2", "v1"), 0.01)
    assert (mixture.shared[0].residual_scale, first.residual_scale) == (0.1, 1.0)
    assert mixture.models()[0] == mixture.base
    assert len(mixture.models()) == 4


def test_routers_that_are_drawn_need_no_prompts(load):
    text = "base_model: a\ngate_mode: {mode}\nexperts: [{{source_model: a}}, {{source_model: a}}]\n"
    assert load(text.format(mode="random")).gate_mode == "random"
    assert load(text.format(mode="uniform")).gate_mode == "uniform"
    assert load(text.format(mode="uniform_random")).gate_mode == "uniform"


def test_written_back_it_is_the_same(load):
    mixture = load(CLOWN_CAR + "seed: 3\nexperts_per_token: 1\narchitecture: qwen\n")
    again = load(resolved_mixture(mixture))
    assert resolved_mixture(again) == resolved_mixture(mixture)
    assert (again.seed, again.experts_per_token, again.architecture) == (3, 1, "qwen2_moe")
    assert [one.positive for one in again.experts] == [one.positive for one in mixture.experts]


def test_everything_wrong_is_told_with_line_and_nearest_name(load):
    with pytest.raises(RecipeError) as caught:
        load(
            "base_modle: a\n"
            "gate_mode: hiden\n"
            "experts_per_token: 3\n"
            "dtype: bfloat\n"
            "experts:\n"
            "  - source_model: b\n"
            "    positve_prompts: [x]\n"
            "    noise_scale: -1\n"
            "  - positive_prompts: one text\n"
            "  - source_model: c\n"
            "    positive_prompts: []\n"
        )
    lines = str(caught.value).splitlines()
    for number, message in (
        (1, "base_modle is not a key of a merge. Did you mean base_model?"),
        (1, "base_model is missing"),
        (2, "gate_mode is 'hiden', expected one of hidden"),
        (3, "experts_per_token is 3, expected 1 to the number of experts, 2"),
        (4, "dtype is 'bfloat'"),
        (6, "experts.0.positive_prompts is missing: gate_mode hidden makes routers of prompts"),
        (7, "experts.0.positve_prompts is not a key of experts.0. Did you mean positive_prompts?"),
        (8, "experts.0.noise_scale is -1, expected a number of at least 0"),
        (9, "experts.1.source_model is missing"),
        (9, "experts.1.positive_prompts is 'one text', expected a list"),
        (11, "experts.2.positive_prompts is empty, expected a list"),
    ):
        assert any(f"moe.yaml:{number}: {message}" in line for line in lines), (message, lines)


def test_prompts_that_are_all_the_same_are_refused(load):
    experts = "experts: [{source_model: a, positive_prompts: [x]}, {source_model: b, positive_prompts: [x]}]\n"
    with pytest.raises(RecipeError, match="all experts have the same prompts"):
        load(f"base_model: a\n{experts}")
    assert load(f"base_model: a\ngate_mode: random\n{experts}").gate_mode == "random"
