"""The tiny model's held-out loss, and a bigram model's on the same tokens."""

import math
from collections.abc import Iterator

import numpy as np
import tiny_batches
import tiny_corpus
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

HELD_OUT_TOKENS = 100_000
ROW_TOKENS = 512
EVALUATION_SEED = 1_000_003


def token_losses(model: LlamaForCausalLM, ids_BL: Tensor) -> Tensor:
    """Next-token loss in nats, shape [B, L - 1]; a row's first token is not predicted."""
    logits_BLV = model(input_ids=ids_BL, use_cache=False).logits[:, :-1]
    losses_T = F.cross_entropy(logits_BLV.flatten(0, 1), ids_BL[:, 1:].flatten(), reduction="none")
    return losses_T.view(len(ids_BL), -1)


@torch.no_grad()
def held_out_loss(model: LlamaForCausalLM, ids: np.ndarray) -> float:
    """Mean loss in nats a token over `ids`, read in rows of `ROW_TOKENS`."""
    model.eval()
    rows = torch.from_numpy(ids[: len(ids) // ROW_TOKENS * ROW_TOKENS]).view(-1, ROW_TOKENS)
    return float(torch.cat([token_losses(model, part) for part in rows.split(8)]).mean())


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
    chat = tiny_batches.generators(code, prose, tokenizer, EVALUATION_SEED)["chat"]
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
