"""Fixed points of the formulas that an estimate is made of."""

import math
from dataclasses import replace

import pytest
import torch

from ftk.core.errors import RecipeError
from ftk.memory.communication import buffer_bytes, shares
from ftk.memory.flops import Work, flops_per_token
from ftk.memory.gpus import GPUS, find_gpu, fitting
from ftk.memory.kv_cache import kv_cache_bytes
from ftk.memory.parameters import inventory
from ftk.memory.rule_of_thumb import inference_bytes, training_bytes
from ftk.memory.setup import Setup, Stored
from ftk.memory.stored import matrix_bytes
from ftk.memory.units import parse_bytes, parse_count, shown
from ftk.models.settings import ModelSettings
from ftk.runs.model_numbers import model_numbers

B = 10**9


def test_the_rule_of_thumb_at_its_customary_points() -> None:
    assert inference_bytes(13 * B, weight_bytes=2) == 31.2e9
    assert training_bytes(13 * B, 13 * B, weight_bytes=2, trained_bytes=2, states=2) - 26 * B == 78e9
    assert training_bytes(0, 1 * B, weight_bytes=2, trained_bytes=2, states=2) == 6e9
    assert training_bytes(7 * B, 7 * B, weight_bytes=2, trained_bytes=2, states=2) == (14 + 42) * B
    assert training_bytes(70 * B, 0, weight_bytes=2, trained_bytes=2, states=0) == 140e9
    assert training_bytes(13 * B, 0, weight_bytes=4, trained_bytes=4, states=0) == 52e9
    # No state for SGD, one with momentum.
    assert training_bytes(0, B, weight_bytes=2, trained_bytes=2, states=0) == 2e9
    assert training_bytes(0, B, weight_bytes=2, trained_bytes=2, states=1) == 4e9


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("24GB", 24 * B), ("24GiB", 24 * 2**30), ("80g", 80 * B), ("1.5 TB", 1500 * B), ("512", 512), ("16gib", 2**34)],
)
def test_sizes_read_as_people_write_them(text: str, num_bytes: int) -> None:
    assert parse_bytes(text, place="--fit") == num_bytes


@pytest.mark.parametrize("text", ["24 apples", "GB", "", "0GB", "-4GB", "24GBB", "24iB"])
def test_sizes_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(RecipeError, match="--fit"):
        parse_bytes(text, place="--fit")


def test_counts_read_as_people_write_them() -> None:
    assert [parse_count(text, place="x") for text in ("13B", "350m", "32k", "7_000", "7e9")] == [
        13 * B,
        35 * 10**7,
        32000,
        7000,
        7 * B,
    ]
    assert parse_count("1.5B", place="x") == parse_count("1,500,000,000", place="x") == 15 * 10**8
    for text in ("13X", "1,5B", "", "-4", "_"):
        with pytest.raises(RecipeError, match="does not say a number"):
            parse_count(text, place="--params")
    for text in ("1.5", "0.6"):
        with pytest.raises(RecipeError, match="no whole number"):
            parse_count(text, place="--batch-size")


def test_bytes_are_shown_in_powers_of_ten() -> None:
    assert [shown(size) for size in (0, 1500, 31.2e9, 104e9)] == ["0 B", "1.5 kB", "31.2 GB", "104 GB"]


def test_keys_and_values_of_llama_2_7b() -> None:
    # 2 vectors x 32 layers x 4,096 wide x 2 bytes: half a MiB a token.
    architecture = model_numbers(ModelSettings(id="meta-llama/Llama-2-7b-hf")).architecture
    assert kv_cache_bytes(architecture, rows=1, length=1, number_bytes=2) == 2**19
    assert kv_cache_bytes(architecture, rows=3, length=4096, number_bytes=2) == 3 * 4096 * 2**19


def test_windows_bound_the_keys_of_their_layers() -> None:
    architecture = model_numbers(ModelSettings(id="google/Gemma-3-1b-it")).architecture
    assert (architecture.num_sliding_layers, architecture.sliding_window) == (22, 512)
    tokens = 22 * 512 + 4 * 8192
    assert kv_cache_bytes(architecture, rows=1, length=8192, number_bytes=2) == 2 * 256 * tokens * 2


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize(("rows", "columns"), [(64, 96), (33, 70)])
def test_four_bit_weights_take_what_bitsandbytes_allocates(rows: int, columns: int, *, double: bool) -> None:
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(
        torch.randn(rows, columns), blocksize=64, compress_statistics=double, quant_type="nf4"
    )
    parts = [packed, state.absmax, state.code]
    if double:
        parts += [state.state2.absmax, state.state2.code, state.offset]
    made = sum(part.numel() * part.element_size() for part in parts)
    assert matrix_bytes(rows * columns, rows, Stored("nf4", 4.0, 64, double)) == made


def test_double_quantization_costs_0_127_bits_a_weight() -> None:
    # Source: Dettmers et al. 2023 (arXiv:2305.14314), double quantization.
    weights = 4096 * 4096
    tables = 4 * 16 + 4 * 256 + 4
    constants = matrix_bytes(weights, 4096, Stored("nf4", 4.0, 64, True)) - weights // 2 - tables
    assert 8 * constants / weights == pytest.approx(0.127, abs=5e-4)


def test_shares_of_zero_stages() -> None:
    def held(strategy: str) -> tuple[float, float, float]:
        share = shares(Setup(1, 8, 7, processes=4, strategy=strategy))
        return share.weights, share.gradients, share.optimizer

    found = {name: held(name) for name in ("ddp", "zero1", "zero2", "zero3", "fsdp")}
    part = 0.25
    assert found["ddp"] == (1, 1, 1)
    assert found["zero1"] == (1, 1, part)
    assert found["zero2"] == (1, part, part)
    assert found["zero3"] == found["fsdp"] == (part, part, part)


def test_buffers_come_with_shards_alone() -> None:
    architecture = model_numbers(ModelSettings(id="meta-llama/Llama-3.2-1B")).architecture
    assert buffer_bytes(architecture, Setup(1, 8, 7, processes=4)) == 0
    assert buffer_bytes(architecture, Setup(1, 8, 7, processes=1, strategy="fsdp")) == 0
    on_gpus = buffer_bytes(architecture, Setup(1, 8, 7, processes=4, strategy="fsdp"))
    assert on_gpus > 0
    # A layer's part comes to the device, and those of two layers' gradients in float32 leave from it.
    layer = sum(one.num_parameters for one in architecture.linears()) + sum(architecture.layer_vectors)
    layer += sum(one.num_weights for one in architecture.fused()) + architecture.router_weights
    offloaded = Setup(1, 8, 7, processes=4, strategy="fsdp_offload")
    assert buffer_bytes(architecture, offloaded) == on_gpus + math.ceil((2 + 2 * 4) * layer / 4)
    assert buffer_bytes(architecture, replace(offloaded, device="cpu")) == on_gpus
    assert not shares(replace(offloaded, device="cpu")).on_host


def test_six_operations_a_weight_and_token() -> None:
    numbers = model_numbers(ModelSettings(id="meta-llama/Llama-2-7b-hf"))
    matrices = sum(one.num_weights for one in numbers.weights.linears) + 4096 * 32000
    full = flops_per_token(inventory(numbers.architecture), None, length=1, trains_all=True, checkpointing=False)
    assert full == 6 * matrices
    frozen = flops_per_token(inventory(numbers.architecture), None, length=1, trains_all=False, checkpointing=False)
    assert frozen == 4 * matrices
    assert Work(6e9, 10**6).seconds(tflops=100, utilisation=0.5, devices=2) == pytest.approx(60)


def test_gpus_are_found_by_name_and_by_room() -> None:
    assert find_gpu("nvidia geforce rtx-4090").name == "RTX 4090"
    with pytest.raises(RecipeError, match="Did you mean RTX 4090"):
        find_gpu("RTX 4091")
    assert find_gpu("H100").name == "H100 80GB"
    assert find_gpu("H100 NVL").name == find_gpu("h100n").name == "H100 NVL"
    with pytest.raises(RecipeError, match="may be any of A100 40GB, A100 80GB"):
        find_gpu("A100")
    assert fitting(25 * 2**30)[0].name == "RTX 5090"
    assert fitting(2**50) == []


def test_gpus_have_a_little_less_than_they_are_sold_with() -> None:
    sold = {"T4": 16, "A10": 24, "L4": 24, "RTX 4090": 24, "A100 40GB": 40, "A40": 48, "L40S": 48, "RTX A6000": 48}
    sold |= {"A100 80GB": 80, "H100 80GB": 80, "H100 NVL": 94, "H200": 141, "MI300X": 192}
    for name, gib in sold.items():
        assert 0.9 <= find_gpu(name).memory_bytes / (gib * 2**30) < 1, name
    memories = [gpu.memory_bytes for gpu in GPUS]
    assert memories == sorted(memories)
