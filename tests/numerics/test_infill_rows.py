"""Rearranged texts in the model: packed equals unpacked, no document sees another, any split is the same update."""

import pytest
from infill_tokenizers import FAMILIES, of_bytes
from separate_rows import assert_any_split_is_one_update, assert_rows_stay_apart

from ftk.core.types import Examples
from ftk.data.infill import Infilling
from ftk.data.infill_format import find_format
from ftk.data.prepare_texts import prepare_texts
from ftk.data.settings import Source
from ftk.data.texts import read_texts
from ftk.objectives.infill import Infill


@pytest.fixture(scope="module", params=["context", "document"])
def examples(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Examples:
    folder = tmp_path_factory.mktemp("code")
    for number in range(6):
        (folder / f"{number}.py").write_text(f"def f{number}(x):\n    y = x * {number}\n    return y\n" * (number + 1))
    tokenizer = of_bytes(FAMILIES["StarCoder"])
    found = find_format(tokenizer)
    assert found is not None
    how = Infilling(found, 0.8, 0.5, "character", request.param, seed=0, context_weight=0.25)
    texts = read_texts([Source(source=str(folder), glob="*.py")])
    made, _ = prepare_texts(texts, tokenizer, max_length=64, overlap=0, infilling=how, cache_folder=None)
    return made


def test_prefix_and_suffix_weigh_what_is_asked(examples: Examples) -> None:
    assert set(examples.weights.tolist()) == {0.0, 0.25, 1.0}
    assert ((examples.weights > 0) == examples.answers).all()


def test_packed_equals_unpacked_and_no_document_sees_another(examples: Examples) -> None:
    assert_rows_stay_apart(examples, vocabulary=300, max_length=64)


def test_any_split_is_the_same_update(examples: Examples) -> None:
    assert_any_split_is_one_update(examples, Infill().objective(), vocabulary=300, max_length=64)
