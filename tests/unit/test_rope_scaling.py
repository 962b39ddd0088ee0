"""Rotary scaling: against transformers' own frequencies, by hand, in a model's buffers, and after a reload."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3TextConfig, GPTNeoXConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ftk.core.errors import FtkError
from ftk.core.positions import max_positions
from ftk.models.context import ContextSettings
from ftk.models.extend import context_values, extend_config, with_context
from ftk.models.load import load_config, load_model
from ftk.models.rope.dynamic import dynamic_frequencies
from ftk.models.rope.frequencies import plain_frequencies
from ftk.models.rope.linear import linear_frequencies
from ftk.models.rope.llama3 import llama3_frequencies
from ftk.models.rope.ntk import ntk_frequencies
from ftk.models.rope.yarn import yarn_attention_factor, yarn_frequencies
from ftk.models.rope_proof import held_frequencies
from ftk.models.settings import ModelSettings

METHODS = ("linear", "ntk", "dynamic", "yarn", "llama3")
THETA, DIM, ORIGINAL = 500_000.0, 64, 2048


def config_with(**rope: Any) -> LlamaConfig:
    positions = rope.pop("positions", ORIGINAL * 4)
    return LlamaConfig(
        hidden_size=2 * DIM,
        num_attention_heads=2,
        max_position_embeddings=positions,
        rope_parameters={"rope_theta": THETA, **rope},
    )


def theirs(config: LlamaConfig, **named: Any) -> torch.Tensor:
    frequencies_F, _ = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]](config, torch.device("cpu"), **named)
    return frequencies_F


@pytest.mark.parametrize("factor", [1.0, 2.5, 8.0])
def test_linear_is_transformers_own(factor: float) -> None:
    ours = linear_frequencies(theta=THETA, dim=DIM, factor=factor)
    torch.testing.assert_close(ours, theirs(config_with(rope_type="linear", factor=factor)), rtol=1e-6, atol=0)


@pytest.mark.parametrize(("factor", "num_tokens"), [(2.0, 2048), (2.0, 5000), (8.0, 16384), (8.0, 100)])
def test_dynamic_is_transformers_own(factor: float, num_tokens: int) -> None:
    ours = dynamic_frequencies(theta=THETA, dim=DIM, factor=factor, original=ORIGINAL, num_tokens=num_tokens)
    config = config_with(rope_type="dynamic", factor=factor, positions=ORIGINAL)
    torch.testing.assert_close(ours, theirs(config, seq_len=num_tokens), rtol=1e-6, atol=0)


@pytest.mark.parametrize("factor", [1.0, 4.0, 32.0])
@pytest.mark.parametrize(("beta_fast", "beta_slow"), [(32, 1), (8, 2)])
def test_yarn_is_transformers_own(factor: float, beta_fast: float, beta_slow: float) -> None:
    ours = yarn_frequencies(
        theta=THETA, dim=DIM, factor=factor, original=ORIGINAL, beta_fast=beta_fast, beta_slow=beta_slow
    )
    config = config_with(
        rope_type="yarn",
        factor=factor,
        original_max_position_embeddings=ORIGINAL,
        beta_fast=beta_fast,
        beta_slow=beta_slow,
        positions=int(ORIGINAL * factor),
    )
    frequencies_F, attention_factor = ROPE_INIT_FUNCTIONS["yarn"](config, torch.device("cpu"))
    torch.testing.assert_close(ours, frequencies_F, rtol=1e-6, atol=0)
    assert yarn_attention_factor(factor) == pytest.approx(attention_factor, abs=1e-12)


@pytest.mark.parametrize("factor", [2.0, 8.0])
def test_llama3_is_transformers_own(factor: float) -> None:
    own = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    ours = llama3_frequencies(theta=THETA, dim=DIM, factor=factor, original=ORIGINAL, **own)
    config = config_with(rope_type="llama3", factor=factor, original_max_position_embeddings=ORIGINAL, **own)
    torch.testing.assert_close(ours, theirs(config), rtol=1e-5, atol=0)


def test_ntk_divides_the_slowest_frequency_by_the_factor_and_leaves_the_fastest() -> None:
    plain, scaled = plain_frequencies(THETA, DIM), ntk_frequencies(theta=THETA, dim=DIM, factor=4)
    assert scaled[0] == plain[0] == 1
    assert float(scaled[-1]) == pytest.approx(float(plain[-1]) / 4, rel=1e-5)


def test_yarn_by_hand() -> None:
    # theta 100, 4 features: frequencies 1 and 1/10. In 100 positions they turn 15.9 and 1.59 times.
    plain = plain_frequencies(100.0, 4)
    assert plain.tolist() == pytest.approx([1, 0.1])
    kept = yarn_frequencies(theta=100.0, dim=4, factor=4, original=100_000, beta_fast=2, beta_slow=1)
    assert kept.tolist() == pytest.approx([1, 0.1])
    divided = yarn_frequencies(theta=100.0, dim=4, factor=4, original=7, beta_fast=8, beta_slow=4)
    assert divided.tolist() == pytest.approx([1, 0.025])
    assert yarn_attention_factor(math.e) == pytest.approx(1.1)


@pytest.mark.parametrize("method", METHODS)
def test_model_holds_the_frequencies_and_has_them_after_a_reload(
    method: str, model_folder: Path, tmp_path: Path
) -> None:
    settings = ModelSettings(id=str(model_folder), context={"length": 1024, "scaling": method})
    model = load_model(settings, dtype=torch.float32)
    assert max_positions(model.config) == 1024
    model.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(with_context(written, context_values(model.config))))
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.config.rope_parameters == model.config.rope_parameters
    assert max_positions(again.config) == 1024
    pairs = zip(held_frequencies(model), held_frequencies(again), strict=True)
    for (ours, our_scale), (theirs_F, their_scale) in pairs:
        torch.testing.assert_close(ours, theirs_F, rtol=0, atol=0)
        assert our_scale == their_scale
    row = torch.arange(3, 40)[None]
    torch.testing.assert_close(model.eval()(input_ids=row).logits, again.eval()(input_ids=row).logits)


@pytest.mark.parametrize("method", METHODS)
def test_transformers_4_keys_alone_tell_the_same(method: str, model_folder: Path) -> None:
    """Version 4 knows `rope_theta` and `rope_scaling`; version 5 still reads files that have these alone."""
    values = context_values(
        load_config(ModelSettings(id=str(model_folder), context={"length": 1024, "scaling": method}))
    )
    older = {"max_position_embeddings": values["max_position_embeddings"], **values["transformers_4"]}
    assert {"rope_theta", "rope_scaling"} < set(older)
    if method == "ntk":
        assert older["rope_scaling"] is None
        assert older["rope_theta"] > 10_000
    else:
        assert older["rope_scaling"]["rope_type"] == method
        assert older["rope_scaling"]["factor"] == 4
        assert "rope_theta" not in older["rope_scaling"]
    assert LlamaConfig(**older).rope_parameters == values["rope_parameters"]


def test_layers_with_a_window_keep_their_positions() -> None:
    config = Gemma3TextConfig(num_hidden_layers=6, max_position_embeddings=1024)
    local = dict(config.rope_parameters["sliding_attention"])
    extend_config(config, ContextSettings(length=4096, scaling="linear"), name="m")
    assert config.rope_parameters["sliding_attention"] == local
    assert config.rope_parameters["full_attention"]["factor"] == 4
    values = context_values(config)
    assert values["transformers_4"]["rope_scaling"] == {"rope_type": "linear", "factor": 4.0}
    assert values["transformers_4"]["rope_local_base_freq"] == local["rope_theta"]
    again = Gemma3TextConfig(**with_context(config.to_dict(), values))
    assert again.rope_parameters == config.rope_parameters
    assert again.max_position_embeddings == 4096


def test_part_of_a_head_that_is_rotated_is_kept() -> None:
    config = GPTNeoXConfig(hidden_size=128, num_attention_heads=2, num_hidden_layers=1, max_position_embeddings=512)
    extend_config(config, ContextSettings(length=2048, scaling="ntk"), name="m")
    assert config.rope_parameters["partial_rotary_factor"] == 0.25
    assert config.rope_parameters["rope_theta"] == pytest.approx(10_000 * 4 ** (16 / 14))
    values = context_values(config)
    assert values["transformers_4"]["rotary_pct"] == 0.25
    assert GPTNeoXConfig(**with_context(config.to_dict(), values)).rope_parameters == config.rope_parameters


def test_going_further_with_the_same_method_starts_from_the_trained_length() -> None:
    config = LlamaConfig(max_position_embeddings=512)
    extend_config(config, ContextSettings(length=1024, scaling="yarn"), name="m")
    extend_config(config, ContextSettings(length=4096, scaling="yarn"), name="m")
    fresh = LlamaConfig(max_position_embeddings=512)
    extend_config(fresh, ContextSettings(length=4096, scaling="yarn"), name="m")
    assert config.rope_parameters == fresh.rope_parameters


@pytest.mark.parametrize(
    ("context", "message"),
    [
        ({"length": 256}, "has 256 positions already"),
        ({"length": 1024, "scaling": {"name": "linear", "factor": 2}}, "reaches from 256 to 512 positions"),
    ],
)
def test_what_does_not_extend_is_refused(context: dict[str, Any], message: str, model_folder: Path) -> None:
    with pytest.raises(FtkError, match=message):
        load_config(ModelSettings(id=str(model_folder), context=context))


def test_a_scaled_model_is_not_scaled_by_another_method() -> None:
    config = LlamaConfig(max_position_embeddings=512)
    extend_config(config, ContextSettings(length=1024, scaling="linear"), name="m")
    with pytest.raises(FtkError, match="scaled by linear already, which yarn cannot go on from"):
        extend_config(config, ContextSettings(length=2048, scaling="yarn"), name="m")


def test_what_an_earlier_stage_has_extended_stays_as_it_is() -> None:
    config = LlamaConfig(max_position_embeddings=512)
    extend_config(config, ContextSettings(length=1024, scaling="llama3"), name="m")
    once = dict(config.rope_parameters)
    extend_config(config, ContextSettings(length=1024, scaling="llama3"), name="m")
    assert config.rope_parameters == once
    with pytest.raises(FtkError, match="has 1024 positions already"):
        extend_config(config, ContextSettings(length=1024, scaling="yarn"), name="m")


def test_a_factor_alone_says_the_length(model_folder: Path) -> None:
    settings = ModelSettings(id=str(model_folder), context={"scaling": {"name": "yarn", "factor": 2}})
    assert max_positions(load_config(settings)) == 512


def test_plain_configuration_is_read_as_before(model_folder: Path) -> None:
    assert max_positions(load_config(ModelSettings(id=str(model_folder)))) == 256
    assert max_positions(AutoConfig.from_pretrained(model_folder)) == 256
