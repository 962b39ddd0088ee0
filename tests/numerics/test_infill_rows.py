"""Rearranged texts in the model: packed equals unpacked, no document sees another, any split is the same update."""

import pytest
import torch
from infill_tokenizers import FAMILIES, of_bytes
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.core.types import Examples
from ftk.data.batches import TrainBatches
from ftk.data.infill import Infilling
from ftk.data.infill_format import find_format
from ftk.data.prepare_texts import prepare_texts
from ftk.data.settings import Source
from ftk.data.texts import read_texts
from ftk.models.scoring import ScoringModel
from ftk.objectives.infill import Infill
from ftk.train.group import join_group
from ftk.train.step import Step


@pytest.fixture(scope="module", params=["context", "document"])
def examples(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    folder = tmp_path_factory.mktemp("code")
    for number in range(6):
        (folder / f"{number}.py").write_text(f"def f{number}(x):\n    y = x * {number}\n    return y\n" * (number + 1))
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    found = find_format(tokenizer)
    assert found is not None
    how = Infilling(found, 0.8, 0.5, "character", request.param, seed=0)
    texts = read_texts([Source(source=str(folder), glob="*.py")])
    made, _ = prepare_texts(texts, tokenizer, max_length=64, overlap=0, infilling=how, cache_folder=None)
    return made


def model() -> ScoringModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return ScoringModel(LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=300, max_position_embeddings=64)))


def batches(examples: Examples, *, packing: bool, micro_batch_size: int = 32) -> TrainBatches:
    return TrainBatches(
        examples,
        batch_size=len(examples),
        micro_batch_size=micro_batch_size,
        packing=packing,
        max_length=64,
        pad_token_id=0,
        seed=0,
    )


def test_packed_equals_unpacked_and_no_document_sees_another(examples: Examples) -> None:
    scoring = model().eval()
    losses = []
    for packing in (True, False):
        some = next(iter(batches(examples, packing=packing)))
        losses.append(sum(-(scoring(one).logps_BL * one.weights_BL).sum() for one in some))
        assert any(one.packed for one in some) is packing
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)
    packed = next(one for one in next(iter(batches(examples, packing=True))) if one.packed)
    row = int((packed.document_ids_BL.max(dim=1).values > 1).nonzero()[0])
    embedded: list[Tensor] = []
    scoring.causal_lm.get_input_embeddings().register_forward_hook(
        lambda module, arguments, output: embedded.append(output)
    )
    second_L = packed.document_ids_BL[row] == 2
    (gradient,) = torch.autograd.grad(scoring(packed).logps_BL[row][second_L].sum(), embedded[0])
    assert not gradient[row][~second_L].any()
    assert gradient[row][second_L].any()


def test_any_split_is_the_same_update(examples: Examples) -> None:
    moved = []
    for size in (32, 3, 1):
        scoring = model()
        step = Step(
            model=scoring,
            objective=Infill().objective(),
            optimizer=torch.optim.SGD(scoring.parameters(), lr=1.0),
            accelerator=join_group("fp32"),
            max_grad_norm=None,
        )
        step(next(iter(batches(examples, packing=False, micro_batch_size=size))), learning_rate=1.0)
        moved.append(torch.cat([parameter.detach().flatten() for parameter in scoring.parameters()]))
    for other in moved[1:]:
        torch.testing.assert_close(other, moved[0], rtol=1e-5, atol=2e-6)
