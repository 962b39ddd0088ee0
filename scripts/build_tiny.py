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
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import tiny_card
import tiny_corpus
import tiny_english
import tiny_optimizer
import tiny_tokenizer
import torch
import torch.nn.functional as F
from tiny_english import Segment
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
ROW_TOKENS = 512
LONG_ROW_TOKENS = 1024
BATCH_TOKENS = 4096
# Share of the tokens that each kind of text gets.
SHARES = {"chat": 0.42, "plain": 0.06, "story": 0.06, "echo": 0.12, "code": 0.14, "infill": 0.05, "prose": 0.15}
HELD_OUT_TOKENS = 100_000
EVALUATION_SEED = 1_000_003


def generators(
    code: list[str], prose: list[str], tokenizer: PreTrainedTokenizerFast, seed: int
) -> dict[str, Iterator[list[Segment]]]:
    """An endless stream of documents for each kind of text in `SHARES`, each with a random state of its own."""
    rngs = {kind: random.Random(f"{seed} {kind}") for kind in SHARES}

    def chat(rng: random.Random) -> list[Segment]:
        messages = tiny_english.conversation(rng)
        # The packer puts the begin token before every document, so the template's own is dropped here.
        rendered = tokenizer.apply_chat_template(messages, tokenize=False).removeprefix(tokenizer.bos_token)
        return tiny_english.as_chat(rendered)

    def forever(make: Callable[[random.Random], list[Segment]], kind: str) -> Iterator[list[Segment]]:
        while True:
            yield make(rngs[kind])

    def library(texts: list[str], kind: str) -> Iterator[list[Segment]]:
        for piece in tiny_corpus.shuffled_forever(texts, rngs[kind]):
            yield [(tiny_corpus.infilling(piece, rngs[kind]) if kind == "infill" else piece, 1.0)]

    return {
        "chat": forever(chat, "chat"),
        "plain": forever(lambda rng: tiny_english.as_plain_text(tiny_english.conversation(rng), rng), "plain"),
        "story": forever(lambda rng: [(tiny_english.story(rng), 1.0)], "story"),
        "echo": forever(tiny_english.echo, "echo"),
        "code": library(code, "code"),
        "infill": library(code, "infill"),
        "prose": library(prose, "prose"),
    }


def encoded(documents: list[list[Segment]], tokenizer: PreTrainedTokenizerFast) -> list[np.ndarray]:
    """Each document as an array [2, tokens]: ids, begin and end included, and the loss weight of each."""
    texts = [text for segments in documents for text, _ in segments]
    pieces = iter(tokenizer(texts, add_special_tokens=False)["input_ids"])
    arrays = []
    for segments in documents:
        ids, weights = [tokenizer.bos_token_id], [1.0]
        for (_, weight), piece in zip(segments, pieces, strict=False):
            ids += piece
            weights += [weight] * len(piece)
        arrays.append(np.array([[*ids, tokenizer.eos_token_id], [*weights, 1.0]]))
    return arrays


def token_stream(
    streams: dict[str, Iterator[list[Segment]]], tokenizer: PreTrainedTokenizerFast
) -> Iterator[np.ndarray]:
    """One document after another; the kind most behind its share of the tokens comes next."""
    told = dict.fromkeys(streams, 0)
    waiting: dict[str, list[np.ndarray]] = {kind: [] for kind in streams}
    while True:
        kind = min(streams, key=lambda kind: told[kind] / SHARES[kind])
        if not waiting[kind]:
            waiting[kind] = encoded(list(islice(streams[kind], 64)), tokenizer)[::-1]
        document = waiting[kind].pop()
        told[kind] += document.shape[1]
        yield document


def packed_batches(documents: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Arrays [2, `BATCH_TOKENS`] of ids and weights, documents following one another without padding."""
    buffer = np.zeros((2, 0))
    while True:
        while buffer.shape[1] < BATCH_TOKENS:
            buffer = np.concatenate([buffer, next(documents)], axis=1)
        yield buffer[:, :BATCH_TOKENS]
        buffer = buffer[:, BATCH_TOKENS:]


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


def token_losses(model: LlamaForCausalLM, ids_BL: Tensor) -> Tensor:
    """Next-token loss in nats, shape [B, L - 1]; a row's first token is not predicted."""
    logits_BLV = model(input_ids=ids_BL, use_cache=False).logits[:, :-1]
    return F.cross_entropy(logits_BLV.transpose(1, 2), ids_BL[:, 1:], reduction="none")


def learning_rate(progress: float, peak: float) -> float:
    """Warm up over the first 2%, hold, and fall linearly to zero over the last 40%."""
    return peak * min(1.0, progress / 0.02, max(0.0, (1 - progress) / 0.4))


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
        loss = (token_losses(model, ids_BL) * weights_BL[:, 1:]).sum() / total_weight
        return loss.item(), torch.autograd.grad(loss, list(model.parameters()))

    losses, by_part = zip(*pool.map(of_part, parts), strict=True)
    return sum(losses), [torch.stack(pieces).sum(dim=0) for pieces in zip(*by_part, strict=True)]


def pretrain(
    model: LlamaForCausalLM, batches: Iterator[np.ndarray], arguments: argparse.Namespace
) -> tuple[np.ndarray, int, float]:
    """Train in place. Returns counts of token pairs seen [V, V] for the bigram baseline, steps, and seconds."""
    optimizers = tiny_optimizer.optimizers_for(model)
    pool = ThreadPoolExecutor(arguments.threads)
    pairs_VV = np.zeros((model.config.vocab_size, model.config.vocab_size), dtype=np.int64)
    started, step, average = time.monotonic(), 0, math.log(model.config.vocab_size)
    model.train()
    while True:
        seconds = time.monotonic() - started
        progress = max(step / arguments.steps, seconds / 60 / arguments.minutes if arguments.minutes else 0.0)
        if progress >= 1:
            return pairs_VV, step, seconds
        batch = next(batches)
        ids, weights = batch[0].astype(np.int64), batch[1].astype(np.float32)
        np.add.at(pairs_VV, (ids[:-1], ids[1:]), 1)
        shape = (-1, LONG_ROW_TOKENS if progress > 0.8 else ROW_TOKENS)
        rows = [torch.from_numpy(array).view(shape).chunk(arguments.threads) for array in (ids, weights)]
        loss, grads = gradients(model, list(zip(*rows, strict=True)), pool)
        for parameter, grad in zip(model.parameters(), grads, strict=True):
            parameter.grad = grad
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, multiple in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(progress + 1e-3, arguments.learning_rate * multiple)
            optimizer.step()
        step += 1
        average += 0.05 * (loss - average)
        if step % 20 == 0:
            print(f"step {step}  {seconds:.0f} s  loss {average:.3f}  cpu {time.process_time():.0f} s", flush=True)
        if step % 200 == 0:
            model.save_pretrained(arguments.work)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, ids: np.ndarray) -> float:
    """Mean loss in nats a token over `ids`, read in rows of `ROW_TOKENS`; each row's first token is not predicted."""
    model.eval()
    rows = torch.from_numpy(ids[: len(ids) // ROW_TOKENS * ROW_TOKENS]).view(-1, ROW_TOKENS)
    return float(torch.cat([token_losses(model, part) for part in rows.split(16)]).mean())


def bigram_loss(pairs_VV: np.ndarray, ids: np.ndarray) -> float:
    """Mean loss in nats of a bigram model with its unigram mixed in (weight 20 tokens), on the same positions."""
    totals_V = pairs_VV.sum(axis=1)
    unigram_V = (pairs_VV.sum(axis=0) + 1) / (pairs_VV.sum() + len(pairs_VV))
    rows = ids[: len(ids) // ROW_TOKENS * ROW_TOKENS].reshape(-1, ROW_TOKENS)
    left, right = rows[:, :-1].ravel(), rows[:, 1:].ravel()
    return float(-np.log((pairs_VV[left, right] + 20 * unigram_V[right]) / (totals_V[left] + 20)).mean())


def held_out_ids(documents: Iterator[str], tokenizer: PreTrainedTokenizerFast) -> tuple[np.ndarray, float]:
    """(ids of whole documents up to `HELD_OUT_TOKENS`, UTF-8 bytes a token of that text)."""
    ids: list[int] = []
    num_bytes = 0
    for text in documents:
        ids += [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        num_bytes += len(text.encode())
        if len(ids) >= HELD_OUT_TOKENS:
            break
    return np.array(ids), num_bytes / len(ids)


def measure(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, pairs_VV: np.ndarray
) -> dict[str, dict[str, float]]:
    """Held-out figures by kind of text: tokens, loss and bigram loss in nats a token, bits a byte of both."""
    code, prose = tiny_corpus.read_library(held_out=True)
    chat = generators(code, prose, tokenizer, EVALUATION_SEED)["chat"]
    talk = ("".join(text for text, _ in segments) for segments in chat)
    texts = {"library code": iter(code), "library documentation": iter(prose), "invented conversations": talk}
    figures = {}
    for kind, documents in texts.items():
        ids, bytes_per_token = held_out_ids(documents, tokenizer)
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
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = "float32"
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    tiny_tokenizer.save_tokenizer(tokenizer, folder)
    (folder / "model.safetensors").chmod(0o644)


def parse_arguments() -> argparse.Namespace:
    """Flags of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1500, help=f"optimizer steps of {BATCH_TOKENS} tokens")
    parser.add_argument("--minutes", type=float, help="stop after this long even if steps are left (not reproducible)")
    parser.add_argument("--learning-rate", type=float, default=2e-2, help="Muon's highest; AdamW's is a fifth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="parts of the batch computed at once, a core each")
    parser.add_argument("--out", type=Path, required=True, help="folder to write the model to")
    parser.add_argument("--work", type=Path, default=Path("/tmp/build-tiny"), help="weights every 200 steps")
    parser.add_argument("--keep-tokenizer", action="store_true", help="take the tokenizer that --out already has")
    return parser.parse_args()


def main() -> None:
    """Tokenizer, model, pretraining, measurement, folder."""
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(1)
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
