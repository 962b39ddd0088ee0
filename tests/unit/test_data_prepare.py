"""From conversations to examples: truncation, what is told of it, and the cache."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_stand_in import assistant, byte_tokenizer, conversation, user
from test_render_answers import CHATML

from ftk.core.errors import DataError
from ftk.core.types import Conversation, Examples
from ftk.data.cache import default_cache_folder
from ftk.data.load import read_conversations
from ftk.data.prepare import PreparationReport, prepare
from ftk.data.render import Renderer
from ftk.data.settings import DataSettings, Source

QUESTION = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"
PROMPT_TOKENS = 1 + 5 + 1 + 1 + 1 + 1 + 10  # of a question of one letter, in a tokenizer of bytes


def rows_of(*answers: str) -> list[Conversation]:
    return [conversation(user("q"), assistant(answer), row=row) for row, answer in enumerate(answers, start=1)]


def run(
    rows: Any, *, truncation: str = "error", max_length: int = 64, renderer: Renderer | None = None, **how: Any
) -> tuple[Examples, PreparationReport]:
    settings = DataSettings(train="unused", truncation=truncation)
    arguments = {"prompt_loss_weight": 0.1, "train_on": "all", "cache_folder": None, **how}
    renderer = renderer or Renderer(byte_tokenizer(bos=None), CHATML)
    return prepare(rows, renderer, settings=settings, max_length=max_length, **arguments)


def learned(examples: Examples, index: int) -> str:
    example = examples[index]
    return str(byte_tokenizer(bos=None).decode(example.token_ids_L[example.answers_L]))


def test_flat_arrays_hold_what_the_renderer_gives() -> None:
    rows = rows_of("a", "bb", "ccc")
    renderer = Renderer(byte_tokenizer(bos=None), CHATML)
    examples, report = run(rows, renderer=renderer)
    for example, row in zip(examples, rows, strict=True):
        expected = renderer.render(row)
        np.testing.assert_array_equal(example.token_ids_L, expected.token_ids_L)
        np.testing.assert_array_equal(example.weights_L, expected.weights_L)
        np.testing.assert_array_equal(example.answers_L, expected.answers_L)
    assert examples.place(2) == "rows.jsonl:3"
    assert (report.num_rows, report.num_examples, report.num_truncated, report.num_dropped) == (3, 3, 0, 0)
    assert report.num_tokens == len(examples.token_ids)
    assert report.num_answer_tokens == 1 + 2 + 3 + 3


def test_prompt_weight_share_by_hand() -> None:
    # 19 prompt tokens after the first, and the line break after the answer, at 0.1; answer and end of turn at 1.
    _, report = run(rows_of("abc"), prompt_loss_weight=0.1)
    assert report.prompt_weight_share == pytest.approx(20 * 0.1 / (20 * 0.1 + 4), rel=1e-6)
    assert run(rows_of("abc"), prompt_loss_weight=0.0)[1].prompt_weight_share == 0
    assert run(rows_of("abc"), prompt_loss_weight=1.0)[1].prompt_weight_share == pytest.approx(20 / 24)


def test_a_row_that_is_too_long_is_an_error_that_names_the_longest() -> None:
    with pytest.raises(DataError, match=r"^rows.jsonl:3: the row has 62 tokens, more than .* as have 2 of 3 rows"):
        run(rows_of("a", "b" * 30, "c" * 40), max_length=50)


def test_truncating_at_the_right_is_counted_with_the_ends_it_takes() -> None:
    exact = PROMPT_TOKENS + 4
    examples, report = run(rows_of("abc", "abcd", "abcdefgh"), truncation="right", max_length=exact)
    # The first loses the line break after its end of turn, the others their end of turn.
    assert [learned(examples, number) for number in range(3)] == ["abc<|im_end|>", "abcd", "abcd"]
    assert (report.num_truncated, report.num_dropped, report.num_without_end) == (3, 0, 2)
    assert report.longest == PROMPT_TOKENS + 8 + 2
    assert any("2 rows lost their end of turn" in line for line in report.lines())


def test_a_row_without_a_learned_token_left_is_dropped_and_counted() -> None:
    rows = [*rows_of("abc"), conversation(user("q" * 60), assistant("a"), row=2)]
    examples, report = run(rows, truncation="right", max_length=40)
    assert (len(examples), report.num_dropped, report.num_examples) == (1, 1, 1)
    assert any("1 rows had no answer left" in line for line in report.lines())
    with pytest.raises(DataError, match="no row is left of 1"):
        run(rows[1:], truncation="right", max_length=40)


def test_no_row_left_names_the_part_of_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"question": "q", "answer": "a"}\n')
    rows = read_conversations([Source(source=str(tmp_path / "r.jsonl"))], role="data.eval")
    with pytest.raises(DataError, match=r"^data\.eval: no row is left of 1"):
        run(rows, truncation="drop", max_length=8)


def test_truncating_at_the_left_keeps_the_bos_and_the_end() -> None:
    renderer = Renderer(byte_tokenizer(bos="<s>", adds_bos=True), CHATML)
    examples, report = run(rows_of("abcdef"), truncation="left", max_length=6, renderer=renderer)
    text = renderer.tokenizer.decode(examples[0].token_ids_L)
    assert text == "<s>def<|im_end|>\n"
    assert examples[0].weights_L.tolist() == pytest.approx([0, 1, 1, 1, 1, 0.1])
    assert report.num_without_end == 0


def test_truncating_at_the_left_without_bos_leaves_the_first_token_without_weight() -> None:
    examples, _ = run(rows_of("abcdef"), truncation="left", max_length=6)
    assert examples[0].weights_L.tolist() == pytest.approx([0, 1, 1, 1, 1, 0.1])
    assert examples[0].answers_L.tolist() == [False, True, True, True, True, False]


def test_dropping_is_counted() -> None:
    examples, report = run(rows_of("abc", "d" * 90), truncation="drop")
    assert (len(examples), report.num_truncated, report.num_dropped) == (1, 1, 1)
    assert "1 of 2 rows are longer than max_length 64 tokens (the longest has 112): dropped" in report.lines()[-1]


class TestCache:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps({"question": f"q{n}", "answer": f"a{n}"}) + "\n" for n in range(20)))
        return file

    def prepared(self, file: Path, **how: Any) -> tuple[Examples, PreparationReport]:
        source = Source(source=str(file), **how.pop("source", {}))
        return run(read_conversations([source]), cache_folder=file.parent / "cache", **how)

    def test_a_second_start_finds_the_same_arrays(self, file: Path) -> None:
        first, told = self.prepared(file)
        second, again = self.prepared(file)
        assert (told.cached, again.cached) == (False, True)
        for name in ("token_ids", "weights", "answers", "offsets", "rows_N", "sources_N"):
            one, other = getattr(first, name), getattr(second, name)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        assert first.source_names == second.source_names
        assert told.lines()[:1] == again.lines()[:1]
        assert "(from the cache)" in again.lines()[1]

    def test_a_second_start_does_not_parse_the_rows(self, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prepared(file)
        monkeypatch.setattr("ftk.data.source.read_file", lambda *_, **__: pytest.fail("rows were read"))
        assert self.prepared(file)[1].cached

    def test_whatever_rows_depend_on_renders_again(self, file: Path) -> None:
        self.prepared(file)
        other_template = Renderer(byte_tokenizer(bos=None), CHATML.replace("\\n'", " '"))
        more_tokens = Renderer(byte_tokenizer(bos=None, tokens=("<|im_start|>", "<|im_end|>", "q1")), CHATML)
        for how in (
            {"prompt_loss_weight": 0.2},
            {"train_on": "last"},
            {"max_length": 60},
            {"truncation": "right"},
            {"renderer": other_template},
            {"renderer": more_tokens},
            {"source": {"system": "s"}},
        ):
            assert not self.prepared(file, **how)[1].cached, how
            assert self.prepared(file, **how)[1].cached, how
        file.write_text(file.read_text() + json.dumps({"question": "new", "answer": "row"}) + "\n")
        assert not self.prepared(file)[1].cached

    def test_conversations_without_files_are_cached_by_what_they_say(self, tmp_path: Path) -> None:
        for answers, cached in ((("a", "b"), False), (("a", "b"), True), (("a", "c"), False)):
            assert run(rows_of(*answers), cache_folder=tmp_path)[1].cached is cached

    def test_a_damaged_entry_is_rendered_again(self, file: Path) -> None:
        self.prepared(file)
        (entry,) = (file.parent / "cache").glob("rendered-*/examples.safetensors")
        entry.write_bytes(entry.read_bytes()[:100])
        assert not self.prepared(file)[1].cached
        assert self.prepared(file)[1].cached

    def test_holds_no_pickle(self, file: Path) -> None:
        self.prepared(file)
        assert {path.suffix for path in (file.parent / "cache").rglob("*") if path.is_file()} == {
            ".safetensors",
            ".json",
        }

    def test_a_cache_that_cannot_be_written_is_no_reason_to_stop(self, file: Path) -> None:
        (file.parent / "cache").write_text("a file, not a folder")
        assert len(self.prepared(file)[0]) == 20

    def test_folder(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("FTK_CACHE", str(tmp_path))
        assert default_cache_folder() == tmp_path
        monkeypatch.delenv("FTK_CACHE")
        assert default_cache_folder() == Path.home() / ".cache" / "ftk"


def test_a_folder_shares_its_weight_among_its_files(tmp_path: Path) -> None:
    for name, number in (("one/a", 1), ("one/b", 3), ("two/c", 4)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        lines = [json.dumps({"question": "q", "answer": f"a{n}"}) for n in range(number)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    sources = [Source(source=str(tmp_path / "one"), weight=4), Source(source=str(tmp_path / "two"), weight=1)]
    for _ in range(2):  # rendered, and from the cache
        examples, report = run(read_conversations(sources), cache_folder=tmp_path / "cache")
        assert [Path(name).name for name in examples.source_names] == ["a.jsonl", "b.jsonl", "c.jsonl"]
        assert report.source_weights == pytest.approx((1, 3, 1))
    assert report.cached


def test_one_file_taken_twice_by_slices_keeps_its_two_weights(tmp_path: Path) -> None:
    file = tmp_path / "r.jsonl"
    file.write_text("".join(json.dumps({"question": "q", "answer": f"a{n}"}) + "\n" for n in range(10)))
    sources = [
        Source(source=str(file), split="train[:2]", weight=1),
        Source(source=str(file), split="train[2:]", weight=2),
    ]
    examples, report = run(read_conversations(sources))
    assert report.source_weights == (1, 2)
    assert np.bincount(examples.sources_N).tolist() == [2, 8]


def test_gsm8k_renders() -> None:
    file = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_train.jsonl"
    if not file.exists():
        pytest.skip("../shared/data is not here")
    source = Source(source=str(file), split="train[:200]", columns={"question": "question", "answer": "answer"})
    rows = read_conversations([source])
    examples, report = run(rows, max_length=4096)
    assert (len(examples), rows.taken[0].format) == (200, "question_answer")
    assert report.num_answer_tokens == sum(len(row.columns["answer"].encode()) + 1 for row in rows)
