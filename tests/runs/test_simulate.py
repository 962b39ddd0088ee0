"""A simulated step takes what a real one takes, as the allocator counts it; a smaller set of benchmarks/memory.py."""

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import memory as benchmark
from accelerate.state import AcceleratorState
from transformers import AutoConfig

from ftk.runs import simulate_step as simulation

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:MatMul8bitLt:UserWarning"),
]
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 512,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {"intermediate_size": 176, "num_key_value_heads": 2},
    "gpt_neox": {"intermediate_size": 256},
    "gemma2": {"intermediate_size": 128, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 32},
    "qwen3_moe": {
        "moe_intermediate_size": 48,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "num_key_value_heads": 2,
        "head_dim": 16,
    },
}
CELLS = [
    benchmark.Cell("llama", "full", False, 64, 2, "adamw", True, "fp32"),
    benchmark.Cell("llama", "qlora", True, 64, 2, "adamw_8bit", False, "fp32"),
    benchmark.Cell("llama", "lora", False, 64, 1, "adamw", False, "bf16"),
    benchmark.Cell("llama", "int8", True, 64, 2, "adamw", False, "fp32"),
    benchmark.Cell("gpt_neox", "full", True, 64, 2, "sgd", True, "fp32"),
    benchmark.Cell("gemma2", "lora", False, 64, 2, "sgd", False, "fp32"),
    benchmark.Cell("qwen3_moe", "full", False, 64, 1, "adamw", False, "fp32"),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        name: benchmark.save_model({"model_type": name, **SMALL, **own}, root / name) for name, own in SHAPES.items()
    }


@pytest.fixture(autouse=True)
def _one_precision_a_test() -> Any:
    kept = dict(AcceleratorState._shared_state)
    yield
    AcceleratorState._shared_state.clear()
    AcceleratorState._shared_state.update(kept)


@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: cell.name)
def test_simulated_is_measured(cell: Any, folders: dict[str, Path]) -> None:
    result = benchmark.run(cell, folders[cell.shape], device="cpu")
    assert abs(result.errors[1]) < 0.01
    parts = result.simulated
    assert parts.total == sum(
        (
            parts.weights,
            parts.adapter,
            parts.gradients,
            parts.optimizer,
            parts.activations,
            parts.logits,
            parts.overhead,
        )
    )


@pytest.mark.parametrize(("tuning", "checkpointing", "count"), [("full", False, 2), ("lora", True, 1)])
def test_layers_multiplied_are_the_whole(
    tuning: str, checkpointing: bool, count: int, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = benchmark.Cell("llama", tuning, checkpointing, 32, 1, "adamw", False, "fp32")
    recipe = benchmark.recipe_for(cell, folders["llama"])
    config = AutoConfig.from_pretrained(folders["llama"])
    config.num_hidden_layers = 8
    batch = benchmark.batch_for(cell, config.vocab_size)
    multiplied = simulation.simulate_step(recipe, config, [batch] * count, precision="fp32")
    monkeypatch.setattr(simulation, "short_lengths", lambda kinds: None)
    whole = simulation.simulate_step(recipe, config, [batch] * count, precision="fp32")
    assert multiplied.bytes == whole.bytes
    assert (multiplied.parameters, multiplied.trainable_parameters) == (whole.parameters, whole.trainable_parameters)


def test_layers_run_again_on_a_gpu_too(folders: dict[str, Path]) -> None:
    config = AutoConfig.from_pretrained(folders["llama"])
    found = {}
    for checkpointing in (False, True):
        cell = benchmark.Cell("llama", "lora", checkpointing, 128, 2, "adamw", False, "bf16")
        recipe = benchmark.recipe_for(cell, folders["llama"])
        batch = benchmark.batch_for(cell, config.vocab_size)
        for device in ("cpu", "cuda"):
            answer = simulation.simulate_step(recipe, config, [batch], precision="bf16", device=device)
            found[checkpointing, device] = answer.bytes.activations
            assert bool(answer.notes) == (device == "cuda")
    assert found[True, "cuda"] < found[False, "cuda"]


def test_integers_are_multiplied_on_a_gpu_alone(folders: dict[str, Path]) -> None:
    import bitsandbytes.autograd._functions as functions

    config = AutoConfig.from_pretrained(folders["llama"])
    cell = benchmark.Cell("llama", "int8", False, 64, 2, "sgd", False, "bf16")
    recipe = benchmark.recipe_for(cell, folders["llama"])
    batch = benchmark.batch_for(cell, config.vocab_size)
    own = functions.MatMul8bitFp
    answers = {
        device: simulation.simulate_step(recipe, config, [batch], precision="bf16", device=device)
        for device in ("cpu", "cuda")
    }
    assert functions.MatMul8bitFp is own
    # The head is computed chunk by chunk on both: no note says that the model's own forward is used.
    assert not answers["cpu"].notes
    assert simulation.GPU_INT8_NOTE in answers["cuda"].notes
    assert not any("full logits" in note for note in answers["cuda"].notes)


@pytest.mark.parametrize("tuning", ["qlora", "int8"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_both_answers_agree_of_quantized_weights_on_a_gpu(
    tuning: str, checkpointing: bool, folders: dict[str, Path]
) -> None:
    """There PEFT leaves casts to autocast, which it does not do on a CPU."""
    config = AutoConfig.from_pretrained(folders["llama"])
    cell = benchmark.Cell("llama", tuning, checkpointing, 256, 2, "adamw", False, "bf16")
    recipe = benchmark.recipe_for(cell, folders["llama"])
    batch = benchmark.batch_for(cell, config.vocab_size)
    simulated = simulation.simulate_step(recipe, config, [batch], precision="bf16", device="cuda").bytes
    summed = benchmark.analytic_bytes(recipe, batch, device="cuda", device_bytes=None)
    assert simulated.total == pytest.approx(summed.total - benchmark.WORKSPACE_BYTES, rel=0.05)


def test_a_small_chunk_of_the_loss_takes_what_is_said(tmp_path: Path) -> None:
    folder = benchmark.save_model(
        {"model_type": "llama", **SMALL, **SHAPES["llama"], "vocab_size": 4096}, tmp_path / "m"
    )
    cell = benchmark.Cell("llama", "lora", True, 64, 2, "sgd", False, "fp32")
    plain = benchmark.recipe_for(cell, folder)
    config = AutoConfig.from_pretrained(folder)
    batch = benchmark.batch_for(cell, config.vocab_size)
    taken = []
    for recipe in (plain, plain.model_copy(update={"training": plain.training.model_copy(update={"loss_chunk": 16})})):
        measured, _ = benchmark.measure_cpu(recipe, batch)
        simulated, _ = benchmark.simulated_bytes(recipe, config, batch, device="cpu", device_bytes=None)
        assert simulated.total == pytest.approx(measured, rel=0.01)
        summed = benchmark.analytic_bytes(recipe, batch, device="cpu", device_bytes=None)
        assert summed.total == pytest.approx(measured, rel=0.03)
        taken.append(measured)
    # The peak was in the head, on float32 logits of 118 tokens over a vocabulary of 4,096.
    assert taken[0] - taken[1] > 10**6
