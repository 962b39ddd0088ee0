"""The pass over the reference, dealt over processes, and the cache of its figures, both without a model.

Shapes: B rows, L positions.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from trees_stand_in import flat, tree

from ftk.core.types import Batch, Examples, TokenScores
from ftk.data.collate import collate
from ftk.models.context import ContextSettings
from ftk.models.locate import ModelPlace
from ftk.runs import reference
from ftk.runs.reference_cache import ReferenceCache, ReferenceFacts, digest_of_model, digest_of_rows

EXAMPLES = [tree([9, 9], [number], [number, 1], index=number) for number in range(1, 8)]
EXPECTED = np.array([[-number, -number - 1] for number in range(1, 8)], np.float32)
FACTS = ReferenceFacts(data="pairs.jsonl", model="m", weights="w", rows="r", precision="p")


class TokenNumbers(nn.Module):
    """Every learned token's log-probability is minus its number."""

    def forward(self, batch: Batch) -> TokenScores:
        assert not torch.is_grad_enabled()
        assert not self.training
        return TokenScores(-batch.input_ids_BL * (batch.weights_BL > 0).float(), batch.answers_BL)


def one_of(num_processes: int, index: int) -> Any:
    return SimpleNamespace(
        process_index=index, num_processes=num_processes, device=torch.device("cpu"), autocast=nullcontext
    )


@pytest.mark.parametrize("num_processes", [1, 2, 3])
def test_batches_of_all_processes_are_joined_in_the_order_of_the_rows(
    num_processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = [collate([[one] for one in some], pad_token_id=0) for some in (EXAMPLES[:3], EXAMPLES[3:4], EXAMPLES[4:])]
    told: list[Any] = []

    def gather(found: Sequence[Any]) -> list[Any]:
        told.extend(found)
        return told

    monkeypatch.setattr("accelerate.utils.gather_object", gather)
    scoring = TokenNumbers().train()
    for index in range(num_processes):
        logps_NK = reference._part(scoring, batches, num_completions=2, accelerator=one_of(num_processes, index))
    np.testing.assert_array_equal(logps_NK, EXPECTED)
    assert scoring.training


def test_the_digest_of_rows_knows_all_that_is_scored() -> None:
    examples = flat(EXAMPLES)
    assert examples.branches is not None

    def changed(values: Any) -> Any:
        return np.concatenate([values[:-1], values[-1:] + 1])

    others: list[Examples] = [
        replace(examples, token_ids=changed(examples.token_ids)),
        replace(examples, weights=changed(examples.weights)),
        replace(examples, offsets=changed(examples.offsets)),
        replace(examples, branches=changed(examples.branches)),
    ]
    assert len({digest_of_rows(one) for one in (examples, *others)}) == 5
    assert digest_of_rows(replace(examples, columns={"desirable": np.ones(7, np.float32)})) == digest_of_rows(examples)


def test_the_digest_of_a_model_knows_its_files_its_adapter_and_how_it_is_extended(tmp_path: Path) -> None:
    def folder(name: str, **files: str) -> Path:
        made = tmp_path / name
        made.mkdir()
        for stem, content in {"model.safetensors": "weights", "config.json": "{}"}.items():
            (made / stem).write_text(files.get(stem.split(".")[0], content))
        return made

    place = ModelPlace(name="m", folder=folder("base"), reference="m")
    context = ContextSettings(length=64)
    digests = [
        digest_of_model(place),
        digest_of_model(place, context),
        digest_of_model(place, ContextSettings(length=128)),
        digest_of_model(replace(place, adapter_folder=folder("adapter"))),
        digest_of_model(replace(place, adapter_folder=folder("other_adapter", model="more"))),
        digest_of_model(replace(place, folder=folder("other_weights", model="others"))),
        digest_of_model(replace(place, folder=folder("other_config", config='{"attention_dropout": 0.1}'))),
        digest_of_model(replace(place, hub_id="a/b", revision="1")),
        digest_of_model(replace(place, hub_id="a/b", revision="2")),
    ]
    assert len(set(digests)) == len(digests)
    assert digest_of_model(replace(place, name="moved", folder=folder("moved"))) == digests[0]


def test_figures_are_found_again_where_all_they_depend_on_is_the_same(tmp_path: Path) -> None:
    cache = ReferenceCache(tmp_path, FACTS)
    assert cache.begin() is None
    cache.save(1, EXPECTED)
    again = ReferenceCache(tmp_path, replace(FACTS, model="moved", data="renamed.jsonl"))
    assert again.begin() is None
    np.testing.assert_array_equal(again.parts({0: (7, 2), 1: (7, 2)})[1], EXPECTED)
    assert again.parts({0: (7, 2), 1: (6, 2)}) == {}


@pytest.mark.parametrize(
    ("name", "words"),
    [("weights", "another model"), ("rows", "other rows"), ("precision", "another precision or version")],
)
def test_figures_of_something_else_are_not_taken_and_that_is_said(tmp_path: Path, name: str, words: str) -> None:
    own = ReferenceCache(tmp_path, FACTS)
    own.begin()
    own.save(1, EXPECTED)
    other = ReferenceCache(tmp_path, replace(FACTS, **{name: "else"}))
    assert other.begin() == f"the cached log-probabilities of pairs.jsonl were made from {words}: computed anew"
    assert other.parts({1: (7, 2)}) == {}
    # Each keeps its own.
    assert own.begin() is None
    assert set(own.parts({1: (7, 2)})) == {1}


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = ReferenceCache(tmp_path / "file", FACTS)
    assert cache.begin() is None
    cache.save(0, EXPECTED)
    assert cache.parts({0: (7, 2)}) == {}
