"""Build ftk://tiny: train its tokenizer, pretrain the model, measure it, and write the folder with its card.

    python scripts/build_tiny.py --steps 1500 --out ftk/models/tiny

What it reads is in tiny_corpus.py (the standard library) and tiny_english.py (invented text). The same
command on the same Python and torch gives the same tokenizer and, on the same kind of machine, the same weights.
"""

import argparse
import copy
import json
import math
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import tiny_card
import tiny_corpus
import tiny_english
import tiny_tokenizer
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

SHAPE = {
    "hidden_size": 192,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 512,
    "max_position_embeddings": 1024,
}
ROW_TOKENS = 512
LONG_ROW_TOKENS = 1024
BATCH_TOKENS = 8192
# Share of the tokens that each kind of text gets.
SHARES = {"chat": 0.36, "plain": 0.10, "story": 0.08, "echo": 0.06, "code": 0.18, "infill": 0.07, "prose": 0.15}
HELD_OUT_TOKENS = 100_000
EVALUATION_SEED = 1_000_003


def generators(
    code: list[str], prose: list[str], tokenizer: PreTrainedTokenizerFast, seed: int
) -> dict[str, Iterator[str]]:
    """An endless stream of documents for each kind of text in `SHARES`, each with a random state of its own."""
    rngs = {kind: random.Random(f"{seed} {kind}") for kind in SHARES}

    def chat() -> Iterator[str]:
        while True:
            messages = tiny_english.conversation(rngs["chat"])
            # The packer puts the begin token before every document, so the template's own is dropped here.
            yield tokenizer.apply_chat_template(messages, tokenize=False).removeprefix(tokenizer.bos_token)

    def plain() -> Iterator[str]:
        while True:
            yield tiny_english.as_plain_text(tiny_english.conversation(rngs["plain"]), rngs["plain"])

    def infill() -> Iterator[str]:
        for piece in tiny_corpus.shuffled_forever(code, rngs["infill"]):
            yield tiny_corpus.infilling(piece, rngs["infill"])

    return {
        "chat": chat(),
        "plain": plain(),
        "story": (tiny_english.story(rngs["story"]) for _ in iter(int, 1)),
        "echo": (tiny_english.echo(rngs["echo"]) for _ in iter(int, 1)),
        "code": tiny_corpus.shuffled_forever(code, rngs["code"]),
        "infill": infill(),
        "prose": tiny_corpus.shuffled_forever(prose, rngs["prose"]),
    }


def token_stream(streams: dict[str, Iterator[str]], tokenizer: PreTrainedTokenizerFast) -> Iterator[list[int]]:
    """Token ids of one document after another, begin and end included; the kind most behind its share comes next."""
    told = dict.fromkeys(streams, 0)
    waiting: dict[str, list[list[int]]] = {kind: [] for kind in streams}
    while True:
        kind = min(streams, key=lambda kind: told[kind] / SHARES[kind])
        if not waiting[kind]:
            texts = list(islice(streams[kind], 64))
            waiting[kind] = tokenizer(texts, add_special_tokens=False)["input_ids"][::-1]
        ids = [tokenizer.bos_token_id, *waiting[kind].pop(), tokenizer.eos_token_id]
        told[kind] += len(ids)
        yield ids


def packed_batches(documents: Iterator[list[int]]) -> Iterator[np.ndarray]:
    """Batches of `BATCH_TOKENS` ids in a row, documents following one another without padding."""
    buffer: list[int] = []
    for ids in documents:
        buffer.extend(ids)
        while len(buffer) >= BATCH_TOKENS:
            yield np.array(buffer[:BATCH_TOKENS])
            buffer = buffer[BATCH_TOKENS:]


def new_model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """The untrained model, float32."""
    config = LlamaConfig(
        vocab_size=tiny_tokenizer.VOCABULARY_SIZE,
        tie_word_embeddings=True,
        attn_implementation="sdpa",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SHAPE,
    )
    return LlamaForCausalLM(config)


def mean_loss(model: LlamaForCausalLM, ids_BL: Tensor) -> Tensor:
    """Mean next-token loss in nats over every position but each row's first."""
    logits_BLV = model(input_ids=ids_BL, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits_BLV.reshape(-1, logits_BLV.shape[-1]), ids_BL[:, 1:].reshape(-1))


def learning_rate(progress: float, peak: float) -> float:
    """Warm up over the first 2%, hold, and fall linearly to zero over the last 40%."""
    return peak * min(1.0, progress / 0.02, max(0.0, (1 - progress) / 0.4))


def optimizer_for(model: LlamaForCausalLM) -> torch.optim.Optimizer:
    """AdamW that decays matrices and leaves norms alone."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)


def pretrain(
    model: LlamaForCausalLM, batches: Iterator[np.ndarray], arguments: argparse.Namespace
) -> tuple[np.ndarray, int, float]:
    """Train in place. Returns counts of token pairs seen [V, V] for the bigram baseline, steps, and seconds."""
    optimizer = optimizer_for(model)
    pairs_VV = np.zeros((model.config.vocab_size, model.config.vocab_size), dtype=np.int64)
    started, step, average = time.monotonic(), 0, math.log(model.config.vocab_size)
    model.train()
    while True:
        seconds = time.monotonic() - started
        progress = max(step / arguments.steps, seconds / 60 / arguments.minutes if arguments.minutes else 0.0)
        if progress >= 1:
            return pairs_VV, step, seconds
        batch = next(batches)
        np.add.at(pairs_VV, (batch[:-1], batch[1:]), 1)
        row_tokens = LONG_ROW_TOKENS if progress > 0.8 else ROW_TOKENS
        loss = mean_loss(model, torch.from_numpy(batch).view(-1, row_tokens))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(progress + 1e-3, arguments.learning_rate)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        average += 0.05 * (loss.item() - average)
        if step % 20 == 0:
            print(f"step {step}  {seconds:.0f} s  loss {average:.3f}  cpu {time.process_time():.0f} s", flush=True)
        if step % 200 == 0:
            model.save_pretrained(arguments.work)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, ids: np.ndarray) -> float:
    """Mean loss in nats a token over `ids`, read in rows of `ROW_TOKENS`; each row's first token is not predicted."""
    model.eval()
    rows = torch.from_numpy(ids[: len(ids) // ROW_TOKENS * ROW_TOKENS]).view(-1, ROW_TOKENS)
    losses = [mean_loss(model, part).item() * len(part) for part in rows.split(16)]
    return sum(losses) / len(rows)


def bigram_loss(pairs_VV: np.ndarray, ids: np.ndarray) -> float:
    """Mean loss in nats of a bigram model with its unigram mixed in (weight 20 tokens), on the same positions."""
    totals_V = pairs_VV.sum(axis=1)
    unigram_V = (pairs_VV.sum(axis=0) + 1) / (pairs_VV.sum() + len(pairs_VV))
    rows = ids[: len(ids) // ROW_TOKENS * ROW_TOKENS].reshape(-1, ROW_TOKENS)
    left, right = rows[:, :-1].ravel(), rows[:, 1:].ravel()
    return float(-np.log((pairs_VV[left, right] + 20 * unigram_V[right]) / (totals_V[left] + 20)).mean())


def held_out_ids(documents: list[str], tokenizer: PreTrainedTokenizerFast) -> tuple[np.ndarray, float]:
    """(ids of whole documents up to `HELD_OUT_TOKENS`, UTF-8 bytes a token of that text)."""
    ids: list[int] = []
    num_bytes = 0
    for text in documents:
        if len(ids) >= HELD_OUT_TOKENS:
            break
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += [tokenizer.bos_token_id, *tokens, tokenizer.eos_token_id]
        num_bytes += len(text.encode())
    return np.array(ids), num_bytes / len(ids)


def measure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs_VV: np.ndarray
) -> dict[str, dict[str, float]]:
    """Held-out figures by kind of text: tokens, loss and bigram loss in nats a token, bits a byte of both."""
    code, prose = tiny_corpus.read_library(held_out=True)
    streams = generators(code, prose, tokenizer, EVALUATION_SEED)
    texts = {"library code": code, "library documentation": prose, "invented conversations": islice(streams["chat"], 600)}
    figures = {}
    for kind, documents in texts.items():
        ids, bytes_per_token = held_out_ids(list(documents), tokenizer)
        loss, bigram = held_out_loss(model, ids), bigram_loss(pairs_VV, ids)
        figures[kind] = {
            "tokens": len(ids),
            "loss": loss,
            "bigram_loss": bigram,
            "bits_per_byte": loss / bytes_per_token / math.log(2),
            "bigram_bits_per_byte": bigram / bytes_per_token / math.log(2),
        }
    return figures


def tokenizer_texts(code: list[str], prose: list[str], seed: int) -> Iterator[str]:
    """What the vocabulary is made from: prose and code of the library, and as much invented text."""
    rng = random.Random(f"{seed} tokenizer")
    yield from prose
    yield from rng.sample(code, len(code) // 3)
    for _ in range(4000):
        yield tiny_english.story(rng)
        yield tiny_english.as_plain_text(tiny_english.conversation(rng), rng)


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
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tiny_tokenizer.save_tokenizer(tokenizer, folder)


def parse_arguments() -> argparse.Namespace:
    """Flags of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help=f"optimizer steps of {BATCH_TOKENS} tokens")
    parser.add_argument("--minutes", type=float, help="stop after this long even if steps are left (not reproducible)")
    parser.add_argument("--learning-rate", type=float, default=3e-3, help="highest learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="CPU threads")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--work", type=Path, default=Path("/tmp/build-tiny"), help="weights every 200 steps")
    parser.add_argument("--keep-tokenizer", action="store_true", help="take the tokenizer that --out already has")
    return parser.parse_args()


def main() -> None:
    """Tokenizer, model, pretraining, measurement, folder."""
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    code, prose = tiny_corpus.read_library(held_out=False)
    if arguments.keep_tokenizer:
        tokenizer = PreTrainedTokenizerFast.from_pretrained(arguments.out)
    else:
        tokenizer = tiny_tokenizer.train_tokenizer(tokenizer_texts(code, prose, arguments.seed))
    model = new_model(tokenizer)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens", flush=True)
    save(model, tokenizer, arguments.out)  # untrained, so that what cannot be written is known before the hours
    documents = token_stream(generators(code, prose, tokenizer, arguments.seed), tokenizer)
    pairs_VV, steps, seconds = pretrain(model, packed_batches(documents), arguments)
    save(model, tokenizer, arguments.out)
    # What is shipped is what is measured: the rounded weights, computed in float32.
    figures = measure(model.to(torch.bfloat16).float(), tokenizer, pairs_VV)
    print(json.dumps(figures, indent=1))
    run = {
        "steps": steps,
        "tokens": steps * BATCH_TOKENS,
        "seconds": seconds,
        "learning_rate": arguments.learning_rate,
        "seed": arguments.seed,
        "parameters": model.num_parameters(),
    }
    (arguments.out / "README.md").write_text(tiny_card.card(run, figures, SHARES))


if __name__ == "__main__":
    main()
