"""What the wrapper around a model promises: documents apart, frozen inputs, experts, unknown architectures."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from scoring_stand_in import SIZES, A, B, C, batch_of, gradients, llama
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, MambaConfig, MambaForCausalLM

from ftk.core.errors import ModelError
from ftk.models.checkpointing import enable_activation_checkpointing
from ftk.models.scoring import ScoringModel

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packing_leak_a_document_sees_nothing_of_its_neighbour(attention: str) -> None:
    model = ScoringModel(llama(attn_implementation=attention)).eval()
    one, other = model(batch_of([A, B, C])), model(batch_of([[40, 41, 42, 43], B, C]))
    assert not torch.equal(one.logps_BL[0, :4], other.logps_BL[0, :4])
    assert torch.equal(one.logps_BL[0, 4:], other.logps_BL[0, 4:])
    embedded: list[Tensor] = []
    embeddings = model.causal_lm.get_input_embeddings()
    embeddings.register_forward_hook(lambda module, arguments, output: embedded.append(output))
    scores = model(batch_of([A, B, C]))
    (gradient,) = torch.autograd.grad(scores.logps_BL[0, 4:9].sum(), embedded[0])
    assert not gradient[0, :4].any()
    assert gradient[0, 4:8].any()
    assert not gradient[0, 9:].any()


def test_packed_is_equal_to_unpacked() -> None:
    model = ScoringModel(llama(initializer_range=0.02)).eval()
    packed, padded = model(batch_of([A, B], [C])), model(batch_of([A], [B], [C]))
    torch.testing.assert_close(packed.logps_BL.sum(), padded.logps_BL.sum(), rtol=1e-6, atol=0)
    torch.testing.assert_close(packed.logps_BL[0, 4:], padded.logps_BL[1], rtol=1e-6, atol=1e-6)


def test_document_border_a_first_token_with_a_weight_is_a_defect() -> None:
    model, batch = ScoringModel(llama()), batch_of([A, B])
    for place in (0, 4):
        weights = batch.weights_BL.clone()
        weights[0, place] = 1
        with pytest.raises(ValueError, match="nothing comes before it"):
            model(replace(batch, weights_BL=weights))


def test_only_tokens_with_a_weight_reach_the_head() -> None:
    model = ScoringModel(llama())
    batch = batch_of([A], [B])
    weights = batch.weights_BL.clone()
    weights[0] = 0
    sizes: list[int] = []
    model.causal_lm.lm_head.register_forward_hook(lambda module, arguments, output: sizes.append(len(output)))
    scores = model(replace(batch, weights_BL=weights))
    assert sizes == [4]
    assert not scores.logps_BL[0].any()
    assert (scores.logps_BL[1, 1:] < 0).all()
    assert not scores.correct_BL[:, 0].any()


def test_a_batch_without_weights_touches_every_weight_and_moves_none() -> None:
    model = ScoringModel(llama())
    batch = batch_of([A])
    scores = model(replace(batch, weights_BL=torch.zeros_like(batch.weights_BL)))
    assert not scores.logps_BL.any()
    assert not scores.correct_BL.any()
    found = gradients(model, scores.logps_BL.sum())
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert not any(gradient.any() for gradient in found.values())


def test_correct_tokens_are_those_that_greedy_decoding_would_take() -> None:
    model = ScoringModel(llama()).eval()
    batch = batch_of([A])
    best = model.causal_lm(input_ids=batch.input_ids_BL).logits.argmax(-1)
    target = batch.input_ids_BL.clone()
    target[0, 3] = best[0, 2]
    assert model(replace(batch, input_ids_BL=target)).correct_BL[0].tolist()[3]


def adapted(model: Any) -> Any:
    return get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False))


def test_checkpointing_with_frozen_inputs_gives_adapters_their_gradients() -> None:
    model = ScoringModel(adapted(llama()))
    calls: list[int] = []
    mlp = model.causal_lm.get_base_model().model.layers[0].mlp
    mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    expected = gradients(model, model(batch_of([A], [B])).logps_BL.sum())
    assert len(calls) == 1
    assert all(gradient.any() for gradient in expected.values())
    enable_activation_checkpointing(model.causal_lm)
    found = gradients(model, model(batch_of([A], [B])).logps_BL.sum())
    assert len(calls) == 3
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_activation_checkpointing_is_refused_where_there_is_none() -> None:
    causal_lm = llama()
    causal_lm.supports_gradient_checkpointing = False
    with pytest.raises(ModelError, match="has no activation checkpointing"):
        enable_activation_checkpointing(causal_lm)


def test_modes_and_gradients_are_left_as_they_were() -> None:
    causal_lm = llama()
    causal_lm.model.layers[0].eval()
    state = torch.get_rng_state()
    ScoringModel(causal_lm)
    assert causal_lm.training
    assert not causal_lm.model.layers[0].mlp.training
    assert all(parameter.grad is None for parameter in causal_lm.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert not causal_lm.lm_head._forward_hooks


class ScaledBeforeHead(LlamaForCausalLM):
    """Changes what the head reads, as some architectures do, in a way that no config names."""

    def forward(self, input_ids: Tensor, **arguments: Any) -> Any:
        outputs = self.model(input_ids=input_ids, **arguments)
        outputs["logits"] = self.lm_head(outputs.last_hidden_state / 4)
        return outputs


class ScaledAfterHead(LlamaForCausalLM):
    def forward(self, input_ids: Tensor, **arguments: Any) -> Any:
        outputs = super().forward(input_ids=input_ids, **arguments)
        outputs.logits = outputs.logits / 4
        return outputs


@pytest.mark.parametrize("architecture", [ScaledBeforeHead, ScaledAfterHead])
def test_head_bypass_an_unknown_architecture_is_run_by_its_own_forward(architecture: Any) -> None:
    torch.manual_seed(0)
    causal_lm = architecture(LlamaConfig(**SIZES)).train()
    model = ScoringModel(causal_lm)
    assert model.head_note is not None
    assert architecture.__name__ in model.head_note
    assert model.packing_note is not None
    for batch in (batch_of([A], [B]), batch_of([A, B], [C])):
        scores = model(batch)
        for row, first, document in [(0, 0, A), (0, 4, B)] if batch.packed else [(0, 0, A), (1, 0, B)]:
            logits_LV = causal_lm(input_ids=torch.tensor([document])).logits[0]
            logps_L = torch.log_softmax(logits_LV[:-1], -1).gather(1, torch.tensor(document)[1:, None])[:, 0]
            torch.testing.assert_close(scores.logps_BL[row, first + 1 : first + len(document)], logps_L)


def test_an_architecture_with_a_state_gets_its_documents_one_by_one() -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}
    causal_lm = MambaForCausalLM(MambaConfig(**sizes, use_mambapy=False)).train()
    model = ScoringModel(causal_lm)
    assert model.head_note is None
    assert model.packing_note is not None
    one, other = model(batch_of([A, B], [C])), model(batch_of([[40, 41, 42, 43], B], [C]))
    torch.testing.assert_close(one.logps_BL[0, 4:], other.logps_BL[0, 4:], rtol=0, atol=0)
    alone = model(batch_of([B]))
    torch.testing.assert_close(one.logps_BL[0, 5:], alone.logps_BL[0, 1:])


def test_packing_leak_a_mask_that_hides_borders_is_found_out_and_avoided() -> None:
    causal_lm = llama()

    def hide_borders(module: nn.Module, arguments: Any, named: dict[str, Any]) -> Any:
        length = named["input_ids"].shape[1]
        return arguments, {**named, "attention_mask": torch.ones(length, length, dtype=torch.bool).tril()[None, None]}

    causal_lm.model.register_forward_pre_hook(hide_borders, with_kwargs=True)
    model = ScoringModel(causal_lm)
    assert model.packing_note is not None
    one, other = model(batch_of([A, B, C])), model(batch_of([[40, 41, 42, 43], B, C]))
    assert torch.equal(one.logps_BL[0, 4:], other.logps_BL[0, 4:])


def test_flattened_rows_give_what_the_rows_give() -> None:
    """What kernels for rows of varying length get; their block mask is transformers' own to make from positions."""
    causal_lm = llama()
    model = ScoringModel(causal_lm).eval()
    batch = batch_of([A, B], [C])
    expected = model(batch)
    causal_lm.config._attn_implementation = "flash_attention_2"
    arrangement = model._arrange(batch)
    causal_lm.config._attn_implementation = "sdpa"
    assert arrangement.input_ids_RM.tolist() == [A + B + C]
    model._arrange = lambda batch: arrangement
    torch.testing.assert_close(model(batch), expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiled_layers_score_the_same() -> None:
    causal_lm = llama()
    model = ScoringModel(causal_lm)
    batch = batch_of([A, B], [C])
    expected = model(batch).logps_BL
    for layer in causal_lm.model.layers:
        layer.compile(backend="eager")
    torch.testing.assert_close(model(batch).logps_BL, expected)


def test_autocast_reaches_the_backbone_and_the_head() -> None:
    model = ScoringModel(llama())
    batch = batch_of([A], [B])
    types: list[torch.dtype] = []
    model.causal_lm.lm_head.register_forward_hook(lambda module, arguments, output: types.append(output.dtype))
    exact = model(batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = model(batch)
    assert types == [torch.float32, torch.bfloat16]
    assert rounded.logps_BL.dtype == torch.float32
    torch.testing.assert_close(rounded.logps_BL, exact.logps_BL, rtol=0.05, atol=0.1)


def test_adapters_beside_a_quantized_base_get_the_gradients_of_its_own_forward() -> None:
    from transformers import BitsAndBytesConfig

    from ftk.models.load import load_model
    from ftk.models.settings import ModelSettings

    base = load_model(
        ModelSettings(id="ftk://tiny"),
        dtype=torch.float32,
        quantization_config=BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4"),
    )
    causal_lm = adapted(base).train()
    assert type(base.model.layers[0].self_attn.o_proj).__name__ == "Linear4bit"
    model = ScoringModel(causal_lm)
    assert (model.head_note, model.packing_note) == (None, None)
    batch = batch_of([A], [B])
    found = gradients(model, model(batch).logps_BL.sum())
    logps_BLV = torch.log_softmax(causal_lm(input_ids=batch.input_ids_BL).logits[:, :-1], -1)
    logps_BL = logps_BLV.gather(2, batch.input_ids_BL[:, 1:, None])[..., 0]
    expected = gradients(model, (logps_BL * batch.weights_BL[:, 1:]).sum())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
