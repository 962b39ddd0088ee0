"""Comparisons of short texts, rendered in a tokenizer of bytes."""

from typing import Any

import numpy as np
from data_stand_in import assistant, byte_tokenizer, user
from test_render_answers import CHATML

from ftk.core.types import Comparison, Example, Examples
from ftk.data.prepare import PreparationReport
from ftk.data.prepare_comparisons import prepare_comparisons
from ftk.data.render import Rendered, Renderer
from ftk.data.settings import DataSettings

PROMPT_TOKENS = 1 + 5 + 1 + 1 + 1 + 1 + 10  # of a question of one letter, in a tokenizer of bytes
RENDERER = Renderer(byte_tokenizer(bos=None), CHATML)


def pair(prompt: str, chosen: str, rejected: str, *, row: int = 1) -> Comparison:
    completions = ((assistant(chosen),), (assistant(rejected),))
    return Comparison((user(prompt),), completions, None, row, "rows.jsonl", {})


def single(prompt: str, completion: str, desirable: bool, *, row: int = 1) -> Comparison:
    return Comparison((user(prompt),), ((assistant(completion),),), desirable, row, "rows.jsonl", {})


def run(
    rows: Any, *, truncation: str = "error", max_length: int = 64, renderer: Renderer = RENDERER, **how: Any
) -> tuple[Examples, PreparationReport]:
    settings = DataSettings(train="unused", truncation=truncation)
    how = {"cache_folder": None, **how}
    return prepare_comparisons(rows, renderer, settings=settings, max_length=max_length, **how)


def text(row: Rendered | Example, branch: int, tokenizer: Any = RENDERER.tokenizer) -> str:
    assert row.branches_L is not None
    return str(tokenizer.decode(row.token_ids_L[row.branches_L == branch]))


def whole(row: Rendered | Example, branch: int) -> np.ndarray:
    """Tokens of the trunk with one branch."""
    assert row.branches_L is not None
    return row.token_ids_L[(row.branches_L == 0) | (row.branches_L == branch)]
