"""From documents to batches: which kind of text comes next, its tokens and loss weights, and rows filled with them."""

import random
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import tiny_corpus
import tiny_english
from tiny_english import Segment
from transformers import PreTrainedTokenizerFast

# Share of the tokens that each kind of text gets.
SHARES = {"chat": 0.50, "plain": 0.05, "story": 0.05, "echo": 0.06, "code": 0.14, "infill": 0.05, "prose": 0.15}
WAITING_DOCUMENTS = 64


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
        for _, weight in segments:
            piece = next(pieces)
            ids += piece
            weights += [weight] * len(piece)
        arrays.append(np.array([[*ids, tokenizer.eos_token_id], [*weights, 1.0]]))
    return arrays


def document_stream(
    streams: dict[str, Iterator[list[Segment]]], tokenizer: PreTrainedTokenizerFast
) -> Iterator[np.ndarray]:
    """One encoded document after another; the kind most behind its share of the tokens comes next."""
    told = dict.fromkeys(streams, 0)
    waiting: dict[str, list[np.ndarray]] = {kind: [] for kind in streams}
    while True:
        kind = min(streams, key=lambda kind: told[kind] / SHARES[kind])
        if not waiting[kind]:
            waiting[kind] = encoded(list(islice(streams[kind], 64)), tokenizer)[::-1]
        document = waiting[kind].pop()
        told[kind] += document.shape[1]
        yield document


def packed_row(documents: Iterator[np.ndarray], waiting: list[np.ndarray], row_tokens: int) -> np.ndarray:
    """One row [2, `row_tokens`] of ids and weights: the document that waits longest, then the longest that still fit.

    Whole documents, so that answers share a row with what they are about; those longer than a row are cut.
    What stays empty has id 0 and weight 0.
    """
    row = np.zeros((2, row_tokens))
    filled = 0
    while True:
        while len(waiting) < WAITING_DOCUMENTS:
            waiting.append(next(documents))
        fitting = [place for place, each in enumerate(waiting) if each.shape[1] <= row_tokens - filled]
        if filled and not fitting:
            return row
        place = max(fitting, key=lambda place: waiting[place].shape[1]) if filled else 0
        document = waiting.pop(place)
        if document.shape[1] > row_tokens:
            waiting.append(document[:, row_tokens:])
            document = document[:, :row_tokens]
        row[:, filled : filled + document.shape[1]] = document
        filled += document.shape[1]
