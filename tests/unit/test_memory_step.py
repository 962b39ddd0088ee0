"""The analytic peak of a step against what torch's allocator counts in a real one, on the CPU."""

from typing import Any

import pytest
import torch
from accelerate import Accelerator
from test_memory_parameters import tiny_config
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, AutoModelForCausalLM

from ftk.core.types import Batch
from ftk.memory.analytic import training_peak
from ftk.memory.architecture import from_config
from ftk.memory.parameters import inventory
from ftk.memory.setup import Adapter, Setup
from ftk.models.checkpointing import enable_activation_checkpointing
from ftk.models.scoring import ScoringModel
from ftk.objectives.sft import Sft
from ftk.train.optimizers import AdamW
from ftk.train.shard import spread
from ftk.train.step import Step
from ftk.tuning.full import Full
from ftk.tuning.lora import Lora

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*[Pp]rofiler.*:UserWarning"),
]
ROWS, LENGTH = 2, 48


def batch(*, packed: bool) -> Batch:
    half = torch.arange(LENGTH // 2)
    positions = torch.cat([half, half]) if packed else torch.arange(LENGTH)
    positions_BL = positions[None].repeat(ROWS, 1)
    documents = torch.arange(LENGTH) // (LENGTH // 2 if packed else LENGTH) + 1
    weights_BL = (positions_BL > 0).float()
    return Batch(
        input_ids_BL=torch.randint(3, 128, (ROWS, LENGTH)),
        position_ids_BL=positions_BL,
        document_ids_BL=documents[None].repeat(ROWS, 1),
        weights_BL=weights_BL,
        answers_BL=weights_BL > 0,
        packed=packed,
        num_tokens=ROWS * LENGTH,
        num_examples=ROWS,
        indices=tuple(range(ROWS)),
    )


def measured(config: dict[str, Any], *, tuning: Full | Lora, checkpointing: bool, packed: bool) -> int:
    """Bytes of weights and states, and the most that a step allocates beside them."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    accelerator = Accelerator(cpu=True)
    tuned = tuning.apply(model)
    if checkpointing:
        enable_activation_checkpointing(tuned)
    scoring = spread(ScoringModel(tuned), accelerator, strategy="ddp").train()
    optimizer = AdamW().build(scoring.named_parameters(), learning_rate=1e-4, weight_decay=0.0)
    step = Step(
        model=scoring, objective=Sft().objective(), optimizer=optimizer, accelerator=accelerator, max_grad_norm=1.0
    )
    rows = batch(packed=packed)
    step([rows], learning_rate=1e-4)
    states = [value for state in optimizer.state.values() for value in state.values()]
    held = {one.untyped_storage()._cdata: one.untyped_storage().nbytes() for one in [*scoring.parameters(), *states]}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step([rows], learning_rate=1e-4)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return sum(held.values()) + most


@pytest.mark.parametrize(
    ("family", "is_full", "checkpointing", "packed"),
    [
        ("llama", True, False, False),
        ("llama", False, True, False),
        ("qwen3", False, False, True),
        ("gemma2", True, True, False),
        ("gpt_neox", False, False, False),
        ("gpt_neox", True, False, True),
        ("mixtral", True, False, False),
        ("qwen3_moe", False, False, False),
        ("olmo2", True, False, False),
        ("phi3", False, True, False),
    ],
)
def test_the_peak_is_what_a_real_step_takes(family: str, *, is_full: bool, checkpointing: bool, packed: bool) -> None:
    config = tiny_config(family) | {"hidden_size": 64, "intermediate_size": 192, "vocab_size": 512}
    config |= {} if family == "gpt_neox" else {"head_dim": 16}
    architecture = from_config(config)
    assert architecture is not None
    tuning = Full() if is_full else Lora(rank=4)
    took = measured(dict(config), tuning=tuning, checkpointing=checkpointing, packed=packed)
    setup = Setup(
        rows=ROWS,
        length=LENGTH,
        scored=ROWS * (LENGTH - (2 if packed else 1)),
        packed=packed,
        device="cpu",
        compute_bytes=4,
        frozen_bytes=4,
        adapter=None if is_full else Adapter(4, None),
        checkpointing=checkpointing,
        attention="eager" if architecture.attention_soft_cap else "sdpa",
    )
    peak = training_peak(architecture, inventory(architecture), setup)
    assert peak.bytes.total == pytest.approx(took, rel=0.05)
    assert peak.bytes.total > 0.97 * took
