"""The positions that an adapter's folder keeps: read, held against each other, and refused when broken."""

import json
from pathlib import Path

import pytest

from ftk.core.errors import ModelError, RecipeError
from ftk.models.extend import saved_context, with_context
from ftk.runs.merging.context import common_context

CONTEXT = {"max_position_embeddings": 512, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}


def folder_with(path: Path, content: str | None) -> Path:
    path.mkdir()
    if content is not None:
        (path / "context.json").write_text(content)
    return path


def test_an_adapter_without_the_file_has_its_bases_positions(tmp_path: Path) -> None:
    assert saved_context(folder_with(tmp_path / "plain", None)) is None
    assert common_context([tmp_path / "plain"]) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"max_position_embeddings": "x", "rope_parameters": {}}'])
def test_a_broken_file_is_named(content: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"context\.json cannot be read .* Expected the positions"):
        saved_context(folder_with(tmp_path / "broken", content))


def test_adapters_of_different_positions_are_not_merged(tmp_path: Path) -> None:
    further = folder_with(tmp_path / "further", json.dumps(CONTEXT))
    same = folder_with(tmp_path / "same", json.dumps(CONTEXT))
    plain = folder_with(tmp_path / "plain", None)
    assert common_context([further, same]) == CONTEXT
    with pytest.raises(RecipeError, match="were trained at different positions"):
        common_context([further, plain])


def test_positions_go_into_the_part_for_text() -> None:
    context = {**CONTEXT, "transformers_4": {"rope_theta": 1e4}}
    flat = with_context({"model_type": "llama"}, context)
    assert flat == {"model_type": "llama", **CONTEXT, "rope_theta": 1e4}
    nested = with_context({"text_config": {"model_type": "llama"}, "vision_config": {}}, context)
    assert nested == {"text_config": flat, "vision_config": {}}
