"""Answers that weigh a fraction and reasoning that weighs less: packed equals unpacked, any split is one update."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import ftk
from ftk.core.types import Examples
from ftk.data.batches import TrainBatches
from ftk.data.load import read_conversations
from ftk.data.prepare import prepare
from ftk.data.render import renderer_for
from ftk.data.settings import DataSettings, Source
from ftk.models.scoring import ScoringModel
from ftk.objectives.sft import SftObjective
from ftk.train.group import join_group
from ftk.train.step import Step

TOKENIZER = AutoTokenizer.from_pretrained(Path(ftk.__file__).parent / "models" / "tiny")
NUM_ROWS = 8


def turns(number: int) -> list[dict]:
    """An answer that weighs a quarter after some reasoning, one that is not learned, and one that weighs all."""
    question = {"role": "user", "content": f"What is {number} and {number}?" + " Please." * (number % 3)}
    answer = {"role": "assistant", "content": f"It is {2 * number}."}
    thought = {"reasoning_content": f"Twice {number} is {2 * number}."}
    return [
        *(question, {**answer, **thought, "weight": 0.25}),
        *(question, {**answer, "weight": 0}),
        *(question, {**answer, **thought, "weight": 1} if number % 2 else answer),
    ]


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Examples:
    file = tmp_path_factory.mktemp("weighed") / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": turns(number)}) + "\n" for number in range(NUM_ROWS)))
    made, _ = prepare(
        read_conversations([Source(source=str(file))]),
        renderer_for(TOKENIZER, chat_template="chatml_tools"),
        settings=DataSettings(train=str(file)),
        max_length=256,
        prompt_loss_weight=0.125,
        train_on="all",
        reasoning_weight=0.5,
        cache_folder=None,
    )
    # Prompt or reasoning of the first answer, its text, what is not learned, all of the last answer, and its reasoning.
    assert set(np.unique(made.weights)) == {0.0, 0.125, 0.25, 0.5, 1.0}
    return made


def model() -> ScoringModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    return ScoringModel(LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=len(TOKENIZER), max_position_embeddings=512)))


def batches(examples: Examples, *, packing: bool, micro_batch_size: int = NUM_ROWS) -> TrainBatches:
    return TrainBatches(
        examples,
        batch_size=len(examples),
        micro_batch_size=micro_batch_size,
        packing=packing,
        max_length=512,
        pad_token_id=0,
        seed=0,
    )


def test_packed_equals_unpacked_and_no_row_sees_another(examples: Examples) -> None:
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
    learned_L = (scoring(packed).logps_BL * packed.weights_BL)[row][second_L]
    (gradient,) = torch.autograd.grad(learned_L.sum(), embedded[0])
    assert not gradient[row][~second_L].any()
    assert gradient[row][second_L].any()


def test_any_split_is_the_same_update(examples: Examples) -> None:
    moved = []
    for size, packing in ((NUM_ROWS, False), (3, False), (1, False), (1, True)):
        scoring = model()
        step = Step(
            model=scoring,
            objective=SftObjective(),
            optimizer=torch.optim.SGD(scoring.parameters(), lr=1.0),
            accelerator=join_group("fp32"),
            max_grad_norm=None,
        )
        step(next(iter(batches(examples, packing=packing, micro_batch_size=size))), learning_rate=1.0)
        moved.append(torch.cat([parameter.detach().flatten() for parameter in scoring.parameters()]))
    for other in moved[1:]:
        torch.testing.assert_close(other, moved[0], rtol=1e-5, atol=2e-6)
