"""How much memory a row takes in training, by its length: it should grow linearly.

Run it as `python benchmarks/long_context.py [--lengths 512 1024 2048 4096]`. A model of 4 layers of width 128 with a
vocabulary of 16,000 takes one forward and backward pass over one row on a CPU, each case in a process of its own: with
the chunked loss and activation checkpointing, with the chunked loss alone, with transformers' own loss over all logits,
and with the chunked loss, checkpointing and shifted sparse attention in groups of 512. Peaks are those of the resident
set during the pass, above what it was before.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

CASES = ("chunked, checkpointed", "chunked", "all logits", "chunked, checkpointed, shifted")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048, 4096])
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--one", nargs=2, metavar=("CASE", "LENGTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measured(arguments.one[0], int(arguments.one[1]))))
        return
    print("| case | " + " | ".join(f"{length:,} tokens" for length in arguments.lengths) + " |")
    print("| --- |" + " --- |" * len(arguments.lengths))
    for case in arguments.cases:
        cells = []
        for length in arguments.lengths:
            command = [sys.executable, __file__, "--one", case, str(length)]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            cells.append(f"{found['bytes'] / 1e6:,.0f} MB, {found['seconds']:.1f} s")
        print(f"| {case} | {' | '.join(cells)} |", flush=True)


def measured(case: str, length: int) -> dict[str, Any]:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ftk.core.types import Batch
    from ftk.models.checkpointing import enable_activation_checkpointing
    from ftk.models.scoring import ScoringModel
    from ftk.models.shifted_sparse import enable_shifted_sparse_attention

    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=16_000,
        max_position_embeddings=length,
    )
    model = LlamaForCausalLM(config)
    if "checkpointed" in case:
        enable_activation_checkpointing(model)
    if "shifted" in case:
        enable_shifted_sparse_attention(model, group=512)
    scoring = ScoringModel(model).train()
    ids = torch.randint(3, 16_000, (1, length))
    weights = torch.ones(1, length).index_fill(1, torch.tensor([0]), 0)
    batch = Batch(
        input_ids_BL=ids,
        position_ids_BL=torch.arange(length)[None],
        document_ids_BL=torch.ones_like(ids),
        weights_BL=weights,
        answers_BL=weights > 0,
        packed=False,
        num_tokens=length,
        num_examples=1,
        indices=(0,),
    )
    for parameter in model.parameters():
        # Gradients of weights are as large however long the row is: they are there before.
        parameter.grad = torch.zeros_like(parameter)
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")
    start = time.perf_counter()
    if case == "all logits":
        model(input_ids=ids, labels=ids).loss.backward()
    else:
        (-scoring(batch).logps_BL.sum() / length).backward()
    return {"bytes": resident("VmHWM") - before, "seconds": time.perf_counter() - start}


def resident(field: str) -> int:
    """Bytes of the resident set now (`VmRSS`), or at its peak (`VmHWM`) since the peak was reset."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
