"""Training speed on one GPU: tokens a second, peak memory and model-FLOPs utilisation (MFU).

    .venv/bin/python benchmarks/sft_gpu.py

Random weights of two published shapes, random tokens, the step that `ftk train` makes: full tuning of Llama-3.2-1B's
shape at 2,048 tokens and LoRA on Llama-3.1-8B's at 4,096, in bf16. MFU counts 6 FLOPs a parameter and token for full
tuning and 4 for LoRA, whose frozen weights need no gradient; recomputation and attention products are not counted.
"""

import argparse
import sys
import time
from dataclasses import dataclass

import numpy as np
import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

from ftk.core.types import Examples
from ftk.data.batches import TrainBatches
from ftk.models.checkpointing import enable_activation_checkpointing
from ftk.models.scoring import ScoringModel
from ftk.objectives.sft import Sft
from ftk.train.group import join_group
from ftk.train.optimizers import AdamW
from ftk.train.precision import store_trained_in_float32
from ftk.train.shard import spread
from ftk.train.step import Step
from ftk.tuning import Tuning
from ftk.tuning.full import Full
from ftk.tuning.lora import Lora

PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}
"""Dense bf16 products a second without sparsity, from the makers' data sheets."""
WARMUP_STEPS = 5


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    name: str
    config: LlamaConfig
    tuning: Tuning
    length: int
    rows: int
    checkpointing: bool

    @property
    def flops_per_parameter(self) -> int:
        return 6 if isinstance(self.tuning, Full) else 4


def llama(**sizes: int | bool) -> LlamaConfig:
    return LlamaConfig(vocab_size=128_256, num_key_value_heads=8, max_position_embeddings=131_072, **sizes)


LLAMA_1B = llama(
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    head_dim=64,
    tie_word_embeddings=True,
)
LLAMA_8B = llama(hidden_size=4096, intermediate_size=14_336, num_hidden_layers=32, num_attention_heads=32)
CASES = [
    Case("Llama-3.2-1B, full", LLAMA_1B, Full(), length=2048, rows=8, checkpointing=False),
    Case("Llama-3.2-1B, full, checkpointing", LLAMA_1B, Full(), length=2048, rows=16, checkpointing=True),
    Case("Llama-3.1-8B, LoRA", LLAMA_8B, Lora(rank=16), length=4096, rows=2, checkpointing=False),
    Case("Llama-3.1-8B, LoRA, checkpointing", LLAMA_8B, Lora(rank=16), length=4096, rows=4, checkpointing=True),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="timed optimizer steps a case")
    parser.add_argument("--compile", action="store_true", help="compile the decoder layers")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("There is no GPU here, so nothing was measured.")
    name = torch.cuda.get_device_name()
    print(f"{name}, torch {torch.__version__}, transformers {transformers.__version__}, compile {arguments.compile}\n")
    print("| shape and tuning | rows x tokens | tokens/s | peak memory | MFU |\n| --- | --- | --- | --- | --- |")
    peak = next((flops for key, flops in PEAK_FLOPS.items() if key in name), None)
    for case in CASES:
        rate, memory_bytes, num_parameters = measure(case, steps=arguments.steps, compile=arguments.compile)
        flops = rate * num_parameters * case.flops_per_parameter
        share = f"{flops / peak:.1%} ({case.flops_per_parameter} FLOPs)" if peak else "unknown peak"
        size = f"{memory_bytes / 2**30:.1f} GiB"
        print(f"| {case.name} | {case.rows} x {case.length} | {rate:,.0f} | {size} | {share} |", flush=True)


def measure(case: Case, *, steps: int, compile: bool) -> tuple[float, int, int]:
    """Tokens a second, peak allocated bytes, and parameters of the base model."""
    accelerator = join_group("bf16")
    torch.manual_seed(0)
    dtype = torch.float32 if isinstance(case.tuning, Full) else torch.bfloat16
    with torch.device(accelerator.device):
        model = LlamaForCausalLM(case.config).to(dtype)
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    tuned = case.tuning.apply(model)
    store_trained_in_float32(tuned)
    if case.checkpointing:
        enable_activation_checkpointing(tuned)
    wrapped = spread(ScoringModel(tuned), accelerator, strategy="ddp", compile=compile)
    wrapped.train()
    optimizer = AdamW().build(wrapped.named_parameters(), learning_rate=1e-5, weight_decay=0.0)
    step = Step(
        model=wrapped, objective=Sft().objective(), optimizer=optimizer, accelerator=accelerator, max_grad_norm=1.0
    )
    batches = iter(random_batches(case))
    torch.cuda.reset_peak_memory_stats()
    for _ in range(WARMUP_STEPS):
        step(next(batches), learning_rate=1e-5)
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step(next(batches), learning_rate=1e-5)
    torch.cuda.synchronize()
    rate = steps * case.rows * case.length / (time.perf_counter() - start)
    memory_bytes = torch.cuda.max_memory_allocated()
    del model, tuned, wrapped, optimizer, step
    torch.cuda.empty_cache()
    return rate, memory_bytes, num_parameters


def random_batches(case: Case) -> TrainBatches:
    """Rows of random tokens, every one of which is learned: the head has all the work that it can have."""
    num_rows = 4 * case.rows
    draw = np.random.default_rng(0)
    size = num_rows * case.length
    offsets = np.arange(num_rows + 1, dtype=np.int64) * case.length
    weights = np.ones(size, np.float32)
    weights[offsets[:-1]] = 0
    examples = Examples(
        token_ids=draw.integers(0, case.config.vocab_size, size, dtype=np.int32),
        weights=weights,
        answers=weights > 0,
        offsets=offsets,
        rows_N=np.arange(1, num_rows + 1, dtype=np.int64),
        sources_N=np.zeros(num_rows, np.int32),
        source_names=("random",),
    )
    return TrainBatches(
        examples,
        batch_size=case.rows,
        micro_batch_size=case.rows,
        max_length=case.length,
        pad_token_id=0,
        seed=0,
    )


if __name__ == "__main__":
    main()
