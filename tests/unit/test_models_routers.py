"""What the wrapper around a model tells of the load of routers."""

from typing import Any

import pytest
import torch
from scoring_stand_in import SIZES, A, B, batch_of, gradients, llama
from transformers.models.mixtral import modeling_mixtral

from ftk.core.errors import ModelError
from ftk.models.checkpointing import enable_activation_checkpointing
from ftk.models.scoring import ScoringModel

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
MIXTURES = {"mixtral": "num_local_experts", "qwen3_moe": "num_experts"}


def mixture(family: str, **values: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        family, **{**SIZES, MIXTURES[family]: 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, **values}
    )
    return AutoModelForCausalLM.from_config(config).train()


@pytest.mark.parametrize("family", MIXTURES)
def test_router_load_gives_the_balancing_loss_of_transformers(family: str) -> None:
    causal_lm = mixture(family)
    model = ScoringModel(causal_lm, router=True)
    for batch in (batch_of([A]), batch_of([A], [B])):
        load = model(batch).router
        mask = (batch.document_ids_BL > 0).long()
        outputs = causal_lm(input_ids=batch.input_ids_BL, attention_mask=mask, output_router_logits=True)
        expected = modeling_mixtral.load_balancing_loss_func(outputs.router_logits, 4, 2, mask)
        assert load.num_tokens == 2 * batch.num_tokens
        loss = 4 * (load.counts_E / load.num_tokens * load.probabilities_E / load.num_tokens).sum()
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(loss, outputs.aux_loss)
        found, wanted = gradients(model, loss), gradients(model, expected)
        # Rounding apart: some are zero but for it.
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


def test_router_load_is_the_same_packed_and_under_checkpointing() -> None:
    causal_lm = mixture("mixtral")
    model = ScoringModel(causal_lm, router=True)
    expected = model(batch_of([A], [B])).router
    wanted = gradients(model, expected.probabilities_E @ torch.arange(4.0))
    enable_activation_checkpointing(causal_lm)
    found = model(batch_of([A, B])).router
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        gradients(model, found.probabilities_E @ torch.arange(4.0)), wanted, rtol=1e-4, atol=1e-5
    )


def test_a_model_without_routers_cannot_tell_their_load() -> None:
    with pytest.raises(ModelError, match="does not tell what its routers do"):
        ScoringModel(llama(), router=True)(batch_of([A]))
