"""`ftk estimate-memory` as its users call it: recipes, models, bare counts, and what is wrong with them."""

import json
from pathlib import Path
from typing import Any

import pytest

from ftk.cli.estimate_memory import command
from ftk.core.errors import FtkError, ModelError, RecipeError
from ftk.memory.estimate import Estimate
from ftk.runs.asked import Flags, ask
from ftk.runs.estimate import estimate


def answered(*words: str, **flags: Any) -> Estimate:
    return estimate(ask(words, Flags(**flags)))


def test_json_has_the_names_that_scripts_rely_on(capsys: pytest.CaptureFixture[str]) -> None:
    answer = command(["recipes/quickstart.yaml"])
    assert answer is not None
    assert json.loads(json.dumps(answer)) == answer
    assert {"parameters", "trainable_parameters", "inference", "training", "per_device", "rule_of_thumb", "method"} <= {
        *answer
    }
    assert {*answer["inference"]} == {"weights_bytes", "kv_cache_bytes", "total_bytes"}
    kinds = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead")
    training: Any = answer["training"]
    assert training["total_bytes"] == sum(training[f"{kind}_bytes"] for kind in kinds)
    assert answer["method"] == "analytic"
    shown = capsys.readouterr().out
    assert "1,722,048 parameters" in shown
    assert "The peak comes in" in shown


def test_65b_trains_in_four_bits_on_one_gpu_of_48_gb() -> None:
    # Source: Dettmers et al. 2023 (arXiv:2305.14314), abstract.
    answer = answered(
        model="huggyllama/llama-65b", tuning="qlora", checkpointing=True, sequence_length="512", batch_size="1"
    )
    assert answer.parameters - answer.trainable_parameters == 65_285_660_672
    assert answer.per_device.bytes.total < 48e9
    plain = answered(model="huggyllama/llama-65b", tuning="lora", checkpointing=True, sequence_length="512")
    assert plain.per_device.bytes.total > 130e9


def test_a_bare_count_is_answered_by_the_rule_of_thumb(capsys: pytest.CaptureFixture[str]) -> None:
    answer: Any = command(params="13B")
    assert answer["method"] == "rule_of_thumb"
    assert answer["inference"]["weights_bytes"] == 26e9
    assert answer["inference"]["total_bytes"] == 31.2e9
    assert answer["inference"]["kv_cache_bytes"] is None
    assert answer["training"]["gradients_bytes"] + answer["training"]["optimizer_bytes"] == 78e9
    assert "parameters x 2 bytes x 1.2 = 31.2 GB" in capsys.readouterr().out


def test_lengths_default_to_2048_or_to_the_positions() -> None:
    assert ask((), Flags(model="meta-llama/Llama-3.1-8B")).setup.length == 2048
    assert ask((), Flags(model="ftk://tiny")).setup.length == 1024


def test_what_costs_memory_moves_the_answer() -> None:
    def total(**flags: Any) -> int:
        return answered(model="Qwen/Qwen2.5-0.5B", **flags).per_device.bytes.total

    plain = total()
    assert total(checkpointing=True) < plain < total(batch_size="4")
    assert total(sequence_length="512") < plain < total(tuning="full")
    assert total(tuning="qlora") < plain
    assert total(tuning="full", optimizer="sgd") < total(tuning="full", optimizer="momentum") < total(tuning="full")
    assert total(dtype="fp32") > plain


def test_a_device_takes_no_more_rows_than_a_step_has() -> None:
    """Training cuts the micro-batch so, and the estimate says that it did."""
    few = ("recipes/quickstart.yaml", "training.batch_size=4")
    cut, plain = answered(*few, batch_size="16"), answered(*few, batch_size="4")
    assert cut.per_device == plain.per_device
    assert any("16 is cut" in note for note in cut.notes)
    assert not any("is cut" in note for note in plain.notes)
    assert ask(("training.batch_tokens=4096", "training.batch_size=1"), Flags(model="ftk://tiny")).setup.rows == 1


def test_strategies_divide_more_and_more() -> None:
    def held(strategy: str) -> Estimate:
        return answered(model="Qwen/Qwen2.5-1.5B", tuning="full", processes="4", strategy=strategy, checkpointing=True)

    found = {name: held(name).per_device for name in ("ddp", "zero1", "zero2", "zero3", "fsdp", "fsdp_offload")}
    totals = [found[name].bytes.total for name in ("ddp", "zero1", "zero2", "zero3", "fsdp_offload")]
    assert totals == sorted(totals, reverse=True)
    assert found["zero3"].bytes == found["fsdp"].bytes
    assert found["fsdp_offload"].host == pytest.approx(16 * 1_543_714_304 / 4, rel=1e-6)


def test_casts_of_weights_in_parts_are_not_kept() -> None:
    """With checkpointing 70B in eight parts take no 141 GB of bf16 copies on each GPU (`ftk.train.group`)."""
    flags = {"model": "meta-llama/Llama-3.1-70B", "tuning": "full", "processes": "8", "checkpointing": True}
    assert answered(**flags, strategy="fsdp").per_device.bytes.activations < 10e9
    offloaded = answered(**flags, strategy="fsdp_offload").per_device
    assert offloaded.bytes.total < 40e9
    assert offloaded.bytes.weights == offloaded.bytes.optimizer == offloaded.bytes.gradients == 0
    told = " ".join(answered(**flags, strategy="fsdp_offload").notes)
    assert "loads it into the machine's memory: 282 GB" in told
    assert "powers of two" in told


def test_time_and_price_follow_the_pace(tmp_path: Path) -> None:
    answer = answered(model="meta-llama/Llama-3.1-8B", tokens="10M", on="H100 80GB", utilisation=0.5, price=2.0)
    work = answer.work
    assert work["train_seconds"] == pytest.approx(work["flops"] / (989e12 * 0.5))
    assert work["dollars"] == pytest.approx(2 * work["train_seconds"] / 3600)
    assert work["is_estimate"] is True


def test_a_time_that_is_none_is_told() -> None:
    held = answered(model="meta-llama/Llama-3.1-8B", on="H200")
    assert not any("hold" in note for note in held.notes)
    assert any("T4 does not hold it" in note for note in answered(model="meta-llama/Llama-3.1-8B", on="T4").notes)
    nowhere = answered(model="meta-llama/Llama-3.1-70B", tuning="full", price=2.0)
    assert "dollars" not in nowhere.work
    assert any("no GPU of the list holds it" in note for note in nowhere.notes)


def test_a_rollout_is_the_standing_bytes_and_a_cache() -> None:
    """Llama 2 7B in bf16 with SGD: half a MiB of keys and values a token, beside weights that training has too."""
    flags = {"model": "meta-llama/Llama-2-7b-hf", "tuning": "lora", "optimizer": "sgd", "checkpointing": True}
    answer = answered(**flags, rollout="8x1024")
    drawn = answer.rollout
    assert drawn is not None
    assert drawn.kv_cache == 8 * 1024 * 2**19
    assert drawn.weights == answer.training.weights + answer.training.adapter
    assert drawn.optimizer == 0
    assert drawn.total == drawn.weights + drawn.overhead + max(drawn.kv_cache + drawn.decoding, drawn.scoring)
    # Logits of 1,024 tokens in 16 and 32 bits, and their states.
    assert drawn.scoring == max(1024 * (6 * 32000 + 2 * 4096), 2 * 1024 * (4 * 4096 + 3 * 11008))
    whole = answered(**flags, rollout="8").rollout
    assert whole is not None
    assert whole.length == 2048
    assert answered(**flags).rollout is None


@pytest.mark.parametrize(
    ("words", "flags", "told"),
    [
        ((), {}, "nothing to estimate"),
        ((), {"model": "meta-llama/Llama-3.1-8B", "sequence_length": "200000"}, "131072 positions"),
        ((), {"model": "ftk://tiny", "batch_size": "0"}, "not above zero"),
        ((), {"model": "ftk://tiny", "sequence_length": "-5"}, "does not say a number"),
        ((), {"model": "ftk://tiny", "tuning": "full", "quantization": "nf4"}, "do not go together"),
        ((), {"model": "ftk://tiny", "tuning": "qlora", "quantization": "none"}, "--quantization none"),
        ((), {"model": "ftk://tiny", "strategy": "zero3"}, "--processes 2 or more"),
        ((), {"model": "ftk://tiny", "strategy": "zero9", "processes": "2"}, "zero9"),
        ((), {"model": "ftk://tiny", "tuning": "lorra"}, "Did you mean lora"),
        ((), {"model": "ftk://tiny", "dtype": "bf17"}, "bf17"),
        ((), {"model": "ftk://tiny", "utilisation": 1.5}, "no part of a peak"),
        ((), {"model": "ftk://tiny", "on": "RTX 4091"}, "Did you mean RTX 4090"),
        ((), {"model": "ftk://tiny", "rollout": "8x2048"}, "--rollout: 2048 tokens are more than the 1024 positions"),
        ((), {"model": "ftk://tiny", "rollout": "0x64"}, "not above zero"),
        ((), {"model": "ftk://tiny", "rollout": "8x"}, "does not say a number"),
        ((), {"model": "ftk://tiny", "device": "tpu"}, "Expected cuda or cpu"),
        (("nowhere.yaml",), {}, "no such file"),
        (("tuning.target_modules=[q_prj]",), {"model": "ftk://tiny"}, "called q_prj. Did you mean q_proj"),
        (("tuning.target_modules=[q_proj, c_attn]",), {"model": "ftk://tiny"}, "called c_attn"),
        (("tuning.target_modules=[]",), {"model": "ftk://tiny"}, "target_modules is empty"),
    ],
)
def test_bad_input_is_one_message(words: tuple[str, ...], flags: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told) as error:
        answered(*words, **flags)
    assert error.value.exit_code == 2


def test_an_unknown_model_is_told_near_ones_and_how_to_give_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def offline(*words: object, **options: object) -> None:
        raise OSError("no connection")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", offline)
    with pytest.raises(ModelError, match=r"Near it are meta-llama/Llama-3.1-8B.*config\.json"):
        answered(model="meta-llama/Llama-3.1-9B")


def test_a_config_that_is_none_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "config.json"
    for text in ("{", "[]", "{}", '{"model_type": "no-such-family"}'):
        broken.write_text(text)
        with pytest.raises(FtkError, match="config"):
            answered(model=str(broken))


def test_a_bare_count_takes_no_architecture() -> None:
    for name, given in {"model": "ftk://tiny", "batch_size": "4", "checkpointing": False, "price": 2.0}.items():
        with pytest.raises(RecipeError, match=f"--{name.replace('_', '-')} needs"):
            command(params="13B", **{name: given})
    assert command(words=[], params="13B", dtype="fp32", optimizer="sgd", tuning="full") is not None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"fit": "24GB", "strategy": "zero3", "processes": "4"}, "does not train with zero3"),
        ({"fit": "24GB", "price": 2.0}, "--price is for one estimate"),
        ({"compare": "full,lora", "tokens": "1M"}, "--tokens is for one estimate"),
        ({"device": "cpu", "on": "T4"}, "--on is about a GPU"),
        ({"device": "cpu", "utilisation": 0.5}, "--utilisation is about a GPU"),
        ({"picture": "new.png"}, "nothing is drawn"),
        ({"fit": "24GB", "rollout": "8"}, "--rollout is for one estimate"),
    ],
)
def test_flags_that_would_do_nothing_are_refused(given: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        command(model="ftk://tiny", **given)
