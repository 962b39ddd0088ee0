"""Loss and gradients are those of transformers' own forward with full logits, for each well-known family."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES, batch_of, documents, model_of
from torch import Tensor

from ftk.core.types import Batch
from ftk.models.checkpointing import enable_activation_checkpointing
from ftk.models.scoring import ScoringModel

# PEFT asks transformers by a name that 5.18 made deprecated, and points out adapters on a tied head.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
]

DOCUMENTS = documents(7, 9, 6)
ROWS = {
    "padded": [[document] for document in DOCUMENTS],
    "packed": [[DOCUMENTS[0], DOCUMENTS[1]], [DOCUMENTS[2]]],
}
SHARED_FILE = Path(__file__).parents[3] / "shared/data/model_architectures.json"


def with_adapters(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model
    from torch import nn

    linear = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]
    assert model.get_output_embeddings() in [model.get_submodule(name) for name in linear]
    # Not as LoRA starts: with a product of zero half of the gradients would be zero.
    return get_peft_model(model, LoraConfig(r=4, target_modules=linear, init_lora_weights=False, task_type="CAUSAL_LM"))


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def own_loss(model: Any, batch: Batch) -> Tensor:
    """Sum of weighted negative log-likelihoods from full logits, each document by itself."""
    total = torch.zeros(())
    for row in range(len(batch.input_ids_BL)):
        for document in batch.document_ids_BL[row].unique():
            if document == 0:
                continue
            here = batch.document_ids_BL[row] == document
            ids_L, weights_L = batch.input_ids_BL[row, here], batch.weights_BL[row, here]
            logits_LV = model(input_ids=ids_L[None], use_cache=False).logits[0]
            logps_L = torch.log_softmax(logits_LV[:-1], dim=-1).gather(1, ids_L[1:, None])[:, 0]
            total = total - (logps_L * weights_L[1:]).sum()
    return total


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_loss_and_gradients_are_those_of_transformers_own_forward(family: str, tuning: str) -> None:
    model = model_of(family)
    model = with_adapters(model) if tuning == "lora" else model
    scoring = ScoringModel(model)
    assert (scoring.head_note, scoring.packing_note) == (None, None)
    batches = {kind: batch_of(rows, skipped=3) for kind, rows in ROWS.items()}
    expected = own_loss(model, batches["packed"])
    expected_gradients = gradients(model, expected)
    floor = 1e-3 * torch.stack([gradient.norm() for gradient in expected_gradients.values()]).norm()
    for checkpointing in (False, True):
        if checkpointing:
            enable_activation_checkpointing(model)
        for kind, batch in batches.items():
            scores = scoring(batch)
            loss = -(scores.logps_BL * batch.weights_BL).sum()
            torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
            for name, gradient in gradients(model, loss).items():
                difference = (gradient - expected_gradients[name]).norm()
                # Some gradients are zero but for rounding, such as that of a bias on keys.
                bound = 1e-5 * torch.maximum(expected_gradients[name].norm(), floor)
                assert difference <= bound, (kind, checkpointing, name, difference / bound)


def test_the_grid_has_every_family_of_the_shared_list() -> None:
    if not SHARED_FILE.exists():
        pytest.skip("the shared list is not here")
    listed = {architecture["model_type"] for architecture in json.loads(SHARED_FILE.read_text()).values()}
    assert listed <= set(FAMILIES)
