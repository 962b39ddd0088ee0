"""Batched decoding against transformers' own, one prompt at a time."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    FalconH1Config,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen3NextConfig,
)

from ftk.core.errors import DataError
from ftk.generation import batch as batch_module
from ftk.generation.batch import Decoder, _closed_ranks
from ftk.generation.cache import RoomyLayer, new_cache
from ftk.generation.decode import _shared_length, decode

SHAPE: dict[str, Any] = {
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
}
GROUPED = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES = {
    "llama": lambda: LlamaConfig(**GROUPED),
    "gemma2": lambda: Gemma2Config(**GROUPED, sliding_window=8, tie_word_embeddings=False),
    "mistral": lambda: MistralConfig(**GROUPED, sliding_window=8),
    "gpt_neox": lambda: GPTNeoXConfig(**SHAPE),
    "mixtral": lambda: MixtralConfig(**GROUPED, num_local_experts=4, num_experts_per_tok=2),
    "gpt2": lambda: GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, n_positions=256),
    "bloom": lambda: BloomConfig(vocab_size=128, hidden_size=32, n_layer=2, n_head=4, tie_word_embeddings=False),
    # Layers with a recurrent state beside layers of full attention.
    "qwen3_next": lambda: Qwen3NextConfig(
        **GROUPED,
        layer_types=["linear_attention", "full_attention"],
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=16,
        shared_expert_intermediate_size=16,
        linear_num_value_heads=4,
        linear_num_key_heads=2,
        linear_key_head_dim=8,
        linear_value_head_dim=8,
    ),
    "falcon_h1": lambda: FalconH1Config(**GROUPED, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8, mamba_d_state=8),
}
ENDS = list(range(0, 128, 12))
"""Many, so that rows end at different lengths."""

# PEFT asks for a name that transformers 5.23 has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


def random_model(config: Any, *, seed: int = 0) -> Any:
    """Weights large enough for tokens to differ from place to place, and the best from the second by a margin."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.3)
    return model


def random_prompts(lengths: Sequence[int], *, seed: int = 1) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, 128, (length,), generator=generator).tolist() for length in lengths]


def generated_alone(model: Any, prompts: Sequence[Sequence[int]], *, max_new_tokens: int) -> list[list[int]]:
    """transformers' greedy generation, one prompt at a time, without the end token."""
    model.eval()
    answers = []
    for prompt in prompts:
        input_ids = torch.tensor([prompt])
        output = model.generate(
            input_ids,
            attention_mask=torch.ones_like(input_ids),
            do_sample=False,
            max_new_tokens=max_new_tokens,
            eos_token_id=ENDS,
            pad_token_id=0,
        )
        tokens = output[0, len(prompt) :].tolist()
        ends = [place for place, token in enumerate(tokens) if token in ENDS]
        answers.append(tokens[: ends[0]] if ends else tokens)
    return answers


def decoded(model: Any, prompts: Sequence[Sequence[int]], **settings: Any) -> list[list[int]]:
    return decode(model, prompts, **{"max_new_tokens": 24, "end_token_ids": ENDS, "pad_token_id": 0} | settings)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("num_shared", [0, 50])
def test_left_padding_batched_equals_one_by_one(family, num_shared):
    model = random_model(FAMILIES[family]())
    prompts = [random_prompts([num_shared], seed=2)[0] + rest for rest in random_prompts([5, 17, 9, 30, 2])]
    expected = generated_alone(model, prompts, max_new_tokens=24)
    assert len({len(answer) for answer in expected}) > 1, "the case must have rows of different lengths"
    assert decoded(model, prompts) == expected


def test_batches_of_any_size_give_the_same_tokens():
    model = random_model(LlamaConfig(**GROUPED))
    prompts = random_prompts([4, 12, 4, 30, 7, 19, 3])
    whole = decoded(model, prompts)
    assert [decoded(model, prompts, batch_size=size) for size in (1, 2, 3)] == [whole] * 3


def test_a_shared_beginning_is_computed_once(monkeypatch):
    model = random_model(LlamaConfig(**GROUPED))
    prompts = [random_prompts([100], seed=3)[0] + rest for rest in random_prompts([5, 8, 6])]
    expected = generated_alone(model, prompts, max_new_tokens=4)
    lengths: list[tuple[int, ...]] = []
    forward = Decoder.forward
    monkeypatch.setattr(
        Decoder, "forward", lambda self, ids, *rest: (lengths.append(tuple(ids.shape)), forward(self, ids, *rest))[1]
    )
    assert decoded(model, prompts, max_new_tokens=4) == expected
    assert lengths[:2] == [(1, 100), (3, 8)]


def test_finished_rows_leave_the_batch(monkeypatch):
    model = random_model(LlamaConfig(**GROUPED))
    prompts = random_prompts([5, 17, 9, 30, 2, 11])
    answers = decoded(model, prompts)
    assert min(map(len, answers)) < max(map(len, answers)), "the case must have rows of different lengths"
    num_rows: list[int] = []
    forward = Decoder.forward
    monkeypatch.setattr(
        Decoder, "forward", lambda self, ids, *rest: (num_rows.append(len(ids)), forward(self, ids, *rest))[1]
    )
    assert decoded(model, prompts) == answers
    # The forward pass after s tokens has the rows that have more than s.
    expected = [sum(len(answer) >= step for answer in answers) for step in range(1, 24)]
    assert num_rows[1:] == [number for number in expected if number]


def test_adapters_take_part():
    model = random_model(LlamaConfig(**GROUPED))
    prompts = random_prompts([5, 17, 9])
    plain = decoded(model, prompts)
    tuned = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    assert decoded(tuned, prompts) == generated_alone(tuned, prompts, max_new_tokens=24) != plain


def test_the_mode_of_every_part_is_restored():
    model = random_model(GPT2Config(vocab_size=128, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0.5, embd_pdrop=0.5))
    model.train()
    frozen = model.transformer.h[0]
    frozen.eval()
    before = {name: part.training for name, part in model.named_modules()}
    prompts = random_prompts([5, 9])
    assert decoded(model, prompts) == decoded(model, prompts), "dropout was active"
    assert {name: part.training for name, part in model.named_modules()} == before
    with pytest.raises(DataError):
        decoded(model, [[]])
    assert model.training


def test_decoding_stops_at_the_models_last_position_and_says_so():
    model = random_model(LlamaConfig(**{**GROUPED, "max_position_embeddings": 32}))
    said: list[str] = []
    answers = decoded(model, random_prompts([28, 8]), end_token_ids=[], tell=said.append)
    assert [len(answer) for answer in answers] == [4, 24]
    assert said == ["1 of 2 answers stopped at the model's last position (32) before 24 new tokens"]


def test_prompts_that_leave_no_answer_are_refused():
    model = random_model(LlamaConfig(**{**GROUPED, "max_position_embeddings": 32}))
    with pytest.raises(DataError, match="prompt 2 has 32 tokens and the model 32 positions"):
        decoded(model, random_prompts([5, 32]))
    with pytest.raises(DataError, match="prompt 1 is empty"):
        decoded(model, [[], [3]])
    assert decoded(model, []) == []


def test_tokens_are_told_as_they_come():
    model = random_model(LlamaConfig(**GROUPED))
    prompts = random_prompts([9])
    heard: list[int] = []
    assert decoded(model, prompts, on_token=heard.append) == [heard]
    with pytest.raises(ValueError, match="single prompt"):
        decoded(model, random_prompts([3, 4]), on_token=heard.append)


def test_draws_depend_on_the_seed_and_not_on_the_rows_beside():
    model = random_model(LlamaConfig(**GROUPED))
    prompts = random_prompts([5, 17, 9, 30])
    drawn = decoded(model, prompts, temperature=1.5, top_p=0.9, seed=4)
    assert drawn == decoded(model, prompts, temperature=1.5, top_p=0.9, seed=4, batch_size=1)
    assert drawn != decoded(model, prompts, temperature=1.5, top_p=0.9, seed=5)
    same = decoded(model, [prompts[0]] * 2, temperature=1.5, seed=4)
    assert same[0] != same[1], "two rows of one prompt draw apart"


def test_the_smallest_top_p_is_greedy():
    model = random_model(LlamaConfig(**GROUPED))
    prompts = random_prompts([5, 17])
    assert decoded(model, prompts, temperature=1.0, top_p=1e-9) == decoded(model, prompts)


def test_memory_bounds_a_batch(monkeypatch):
    model = random_model(LlamaConfig(**GROUPED))
    prompts = random_prompts([10] * 5)
    sizes: list[int] = []
    run = batch_module.decode_batch
    monkeypatch.setattr(
        "ftk.generation.decode.decode_batch",
        lambda decoder, rows, **settings: (sizes.append(len(rows)), run(decoder, rows, **settings))[1],
    )
    # Two layers of keys and values, two heads of width 8, four bytes each; 34 positions a row.
    monkeypatch.setattr("ftk.generation.decode._cache_bytes", lambda device: 2 * 2 * 2 * 8 * 4 * 34 * 2)
    decoded(model, prompts)
    assert sizes == [2, 2, 1]
    sizes.clear()
    monkeypatch.undo()
    monkeypatch.setattr("ftk.generation.decode.PREFILL_TOKENS", 30)
    monkeypatch.setattr(
        "ftk.generation.decode.decode_batch",
        lambda decoder, rows, **settings: (sizes.append(len(rows)), run(decoder, rows, **settings))[1],
    )
    decoded(model, prompts)
    assert sizes == [3, 2]


def test_shared_length():
    assert _shared_length([[1, 2, 3, 4], [1, 2, 5], [1, 2, 3]]) == 2
    assert _shared_length([[1, 2], [1, 2], [1, 2]]) == 1  # one token must be left to go on from
    assert _shared_length([[1, 2, 3], [1, 2]]) == 1
    assert _shared_length([[1], [2]]) == 0
    assert _shared_length([[1, 2, 3]]) == 0


def test_rows_close_ranks_with_few_moves():
    assert _closed_ranks([True, False, True, True, False, True]) == [0, 5, 2, 3]
    assert _closed_ranks([False, False, True]) == [2]
    assert _closed_ranks([True, True, False]) == [0, 1]


def test_roomy_layer_holds_what_a_concatenating_one_would():
    torch.manual_seed(0)
    layer = RoomyLayer(room=6)
    held = torch.empty(4, 2, 0, 3)
    rows = torch.arange(4)
    for length in (4, 1, 1, 3):  # the last ones are past its room
        new = torch.randn(len(rows), 2, length, 3)
        held = torch.cat([held, new], dim=2)
        keys, values = layer.update(new, -new)
        assert torch.equal(keys, held)
        assert torch.equal(values, -held)
        if length == 1:
            rows = torch.tensor(_closed_ranks([place != 0 for place in range(len(rows))]))
            held = held[rows]
            layer.reorder_cache(rows)
            assert torch.equal(layer.keys, held)
    assert layer.get_seq_length() == 9


def test_the_cache_is_written_in_place():
    cache = new_cache(LlamaConfig(**GROUPED), room=8)
    first = cache.update(torch.ones(1, 2, 3, 8), torch.ones(1, 2, 3, 8), 0)[0]
    second = cache.update(torch.ones(1, 2, 1, 8), torch.ones(1, 2, 1, 8), 0)[0]
    assert first.data_ptr() == second.data_ptr()
