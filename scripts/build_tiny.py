"""Build ftk://tiny: train its tokenizer, pretrain the model, measure it, and write the folder with its card.

    python scripts/build_tiny.py --steps 1500 --out ftk/models/tiny

What it reads is in tiny_corpus.py (the standard library) and tiny_english.py (invented text). The same
command on the same Python and torch gives the same tokenizer and, on the same kind of machine, the same weights.
"""

import argparse
import copy
import json
import random
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tiny_batches
import tiny_card
import tiny_corpus
import tiny_english
import tiny_measure
import tiny_optimizer
import tiny_tokenizer
import torch
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SHAPE = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "intermediate_size": 384,
    "max_position_embeddings": 1024,
}
BATCH_TOKENS = 4096
# Tokens in a row, up to that share of the run. To find what an answer copies is learned first where there is little
# to search: in rows that hold one or two documents.
ROW_TOKENS = ((0.5, 192), (0.85, 512), (1.0, 1024))


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model, float32."""
    config = LlamaConfig(
        vocab_size=tiny_tokenizer.VOCABULARY_SIZE,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )
    return LlamaForCausalLM(config)


def learning_rate(progress: float, peak: float) -> float:
    """Warm up over the first 2%, hold, and fall linearly to zero over the last 40%."""
    return peak * min(1.0, (progress + 1e-3) / 0.02, (1 - progress) / 0.4)


def row_tokens(progress: float) -> int:
    """How many tokens a row has at this share of the run."""
    return next(length for until, length in ROW_TOKENS if progress < until)


def gradients(
    model: LlamaForCausalLM, parts: list[tuple[Tensor, Tensor]], pool: ThreadPoolExecutor
) -> tuple[float, list[Tensor]]:
    """Weighted mean loss over all parts and its gradient by parameter, each part in a thread of its own.

    Two threads that each compute half of the batch on one core train 1.8 times faster than one that shares every
    small product between two cores, and are not held up at barriers when the machine has other work.
    """
    total_weight = float(sum(weights_BL[:, 1:].sum() for _, weights_BL in parts))

    def of_part(part: tuple[Tensor, Tensor]) -> tuple[float, tuple[Tensor, ...]]:
        ids_BL, weights_BL = part
        loss = (tiny_measure.token_losses(model, ids_BL) * weights_BL[:, 1:]).sum() / total_weight
        return loss.item(), torch.autograd.grad(loss, list(model.parameters()))

    losses, by_part = zip(*pool.map(of_part, parts), strict=True)
    return sum(losses), [torch.stack(pieces).sum(dim=0) for pieces in zip(*by_part, strict=True)]


def count_pairs(pairs_VV: np.ndarray, ids_BL: np.ndarray, weights_BL: np.ndarray) -> int:
    """Count neighbouring tokens for the bigram baseline; returns how many tokens the batch has without padding."""
    real = weights_BL[:, 1:] > 0
    np.add.at(pairs_VV, (ids_BL[:, :-1][real], ids_BL[:, 1:][real]), 1)
    return int((weights_BL > 0).sum())


def pretrain(
    model: LlamaForCausalLM, documents: Iterator[np.ndarray], arguments: argparse.Namespace
) -> tuple[np.ndarray, dict[str, float]]:
    """Train in place. Returns counts of the token pairs it read [V, V], and the run's steps, tokens and seconds."""
    optimizers = tiny_optimizer.optimizers_for(model)
    pool = ThreadPoolExecutor(arguments.threads)
    pairs_VV = np.zeros((model.config.vocab_size, model.config.vocab_size), dtype=np.int64)
    waiting: list[np.ndarray] = []
    started, tokens = time.monotonic(), 0
    model.train()
    for step in range(arguments.steps):
        progress = step / arguments.steps
        length = row_tokens(progress)
        rows = [tiny_batches.packed_row(documents, waiting, length) for _ in range(BATCH_TOKENS // length)]
        ids_BL, weights_BL = np.stack(rows, axis=1)
        ids_BL = ids_BL.astype(np.int64)
        tokens += count_pairs(pairs_VV, ids_BL, weights_BL)
        halves = [torch.from_numpy(ids_BL), torch.from_numpy(weights_BL).float()]
        parts = list(zip(*(half.chunk(arguments.threads) for half in halves), strict=True))
        loss, grads = gradients(model, parts, pool)
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            parameter.grad = grad
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, multiple in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress, arguments.learning_rate) * multiple
            optimizer.step()
        if step % 20 == 19:
            seconds = time.monotonic() - started
            cpu = time.process_time()
            print(f"step {step + 1}  {seconds:.0f} s (processor {cpu:.0f} s)  loss {loss:.3f}", flush=True)
        if step % 100 == 99:
            model.save_pretrained(arguments.work)
    return pairs_VV, {"steps": arguments.steps, "tokens": tokens, "seconds": time.monotonic() - started}


def tokenizer_texts(code: list[str], prose: list[str], seed: int) -> Iterator[str]:
    """What the vocabulary is made from: prose and code of the library, and as much invented text."""
    rng = random.Random(f"{seed} tokenizer")
    yield from prose
    yield from rng.sample(code, len(code) // 3)
    for _ in range(4000):
        yield tiny_english.story(rng)
        yield "".join(text for text, _ in tiny_english.as_plain_text(tiny_english.conversation(rng), rng))


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write weights as bfloat16, which halves the folder; the config says float32, the precision to compute in."""
    folder.mkdir(parents=True, exist_ok=True)
    turn_end = tokenizer.convert_tokens_to_ids(tiny_tokenizer.TURN_END)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[turn_end, tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
        do_sample=False,
    )
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tiny_tokenizer.save_tokenizer(tokenizer, folder)


def parse_arguments() -> argparse.Namespace:
    """Flags of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help=f"optimizer steps of {BATCH_TOKENS} tokens")
    parser.add_argument("--learning-rate", type=float, default=2e-2, help="Muon's highest; AdamW's is a fifth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="parts of the batch computed at once, a core each")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "build-tiny", help="weights every 100 steps"
    )
    return parser.parse_args()


def main() -> None:
    """Tokenizer, model, pretraining, measurement, folder."""
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
    code, prose = tiny_corpus.read_library(held_out=False)
    tokenizer = tiny_tokenizer.train_tokenizer(tokenizer_texts(code, prose, arguments.seed))
    model = new_model(tokenizer)
    save(model, tokenizer, arguments.out)  # untrained, so that a folder that cannot be written is known now
    streams = tiny_batches.generators(code, prose, tokenizer, arguments.seed)
    pairs_VV, run = pretrain(model, tiny_batches.document_stream(streams, tokenizer), arguments)
    save(model, tokenizer, arguments.out)
    # What is shipped is what is measured: the rounded weights, computed in float32.
    figures = tiny_measure.measure(model.to(torch.bfloat16).float(), tokenizer, pairs_VV)
    print(json.dumps(figures, indent=1))
    run |= {"learning_rate": arguments.learning_rate, "seed": arguments.seed, "parameters": model.num_parameters()}
    (arguments.out / "README.md").write_text(tiny_card.card(run, figures, tiny_batches.SHARES))


if __name__ == "__main__":
    main()
