"""New tokens beside adapters: which rows are trained, and where they start."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.core.errors import RecipeError
from ftk.models.vocabulary import grow_vocabulary
from ftk.tuning.full import Full
from ftk.tuning.lora import Lora

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}


def grown(*, tied: bool, num_rows: int = 20) -> LlamaForCausalLM:
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, vocab_size=num_rows, tie_word_embeddings=tied))
    grow_vocabulary(model, 20, new_token_ids=(18, 19))
    return model


@pytest.mark.parametrize("num_rows", [18, 20, 24])
@pytest.mark.parametrize("tied", [True, False])
def test_new_rows_are_the_mean_of_the_known_ones(tied: bool, num_rows: int) -> None:
    """Whether the rows are made now, or were there unused; padding is not a token."""
    model = grown(tied=tied, num_rows=num_rows)
    for matrix in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
        assert len(matrix) == max(20, num_rows)
        torch.testing.assert_close(matrix[18:20], matrix[:18].mean(dim=0).expand(2, -1))
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is tied
    assert model.config.vocab_size == max(20, num_rows)


@pytest.mark.parametrize("tied", [True, False])
def test_only_the_rows_of_new_tokens_are_trained(tied: bool) -> None:
    model = Lora(rank=2, target_modules="q_proj").apply(grown(tied=tied), new_token_ids=(18, 19))
    trained = {name: one for name, one in model.named_parameters() if one.requires_grad and "lora_" not in name}
    assert {tuple(one.shape) for one in trained.values()} == {(2, 16)}
    assert len(trained) == (1 if tied else 2)
    model(torch.tensor([[1, 18, 2, 19]]), labels=torch.tensor([[1, 18, 2, 19]])).loss.backward()
    assert all(one.grad is not None and one.grad.any() for one in trained.values())


def test_what_is_trained_whole_needs_no_rows_of_its_own() -> None:
    lora = Lora(rank=2, target_modules="q_proj", also=("embeddings",))
    model = lora.apply(grown(tied=True), new_token_ids=(18, 19))
    assert not any("trainable_tokens" in name for name, _ in model.named_parameters())
    assert any(one.shape == (20, 16) and one.requires_grad for one in model.parameters())


def test_full_tuning_moves_all_rows_and_an_adapter_takes_no_new_ones() -> None:
    assert all(one.requires_grad for one in Full().apply(grown(tied=True), new_token_ids=(18, 19)).parameters())
    adapted = Lora(rank=2, target_modules="q_proj").apply(grown(tied=True))
    with pytest.raises(RecipeError, match="as it is made"):
        Lora(rank=2).apply(adapted, new_token_ids=(18, 19))
