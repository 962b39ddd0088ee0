"""Comparisons made ready to learn from: truncation, single answers, the cache, statistics."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from comparisons_stand_in import PROMPT_TOKENS, RENDERER, pair, run, single, text, whole
from data_stand_in import assistant, byte_tokenizer, conversation, user
from test_render_answers import CHATML

from ftk.core.errors import DataError
from ftk.core.types import Comparison, Examples
from ftk.data.branches import mismatched
from ftk.data.comparisons import read_comparisons
from ftk.data.prepare import PreparationReport
from ftk.data.render import Renderer
from ftk.data.settings import Source
from ftk.data.statistics import overlap, statistics


class TestTruncation:
    """The prompt has 20 tokens; a completion of n letters n, its end of turn and a line break."""

    def test_the_longer_side_is_too_long(self) -> None:
        rows = [pair("q", "a", "b"), pair("q", "a", "b" * 30, row=2), pair("q", "c" * 40, "d", row=3)]
        with pytest.raises(
            DataError, match=r"^rows.jsonl:3: the prompt with its longest completion has 62 tokens, .* 2"
        ):
            run(rows, max_length=50)
        assert run(rows, max_length=62)[1].num_truncated == 0

    def test_right(self) -> None:
        rows = [pair("q", "abcdef", "b"), pair("q", "ab", "abcdef", row=2), pair("q", "abcdefX", "abcdefY", row=3)]
        examples, report = run(rows, truncation="right", max_length=PROMPT_TOKENS + 4)
        assert [[text(row, branch) for branch in (1, 2)] for row in examples] == [
            ["abcd", "b<|im_end|>\n"],
            ["ab<|im_end|>\n", "abcd"],
        ]
        assert (report.num_truncated, report.num_dropped, report.num_without_end) == (3, 1, 2)
        assert "1 rows had too little of an answer left after the cut: dropped" in report.lines()[2]

    def test_right_drops_a_pair_of_which_one_side_has_no_answer_left(self) -> None:
        silent = {**assistant("a" * 20), "train": False}
        completions = ((silent, user("x"), assistant("good")), (assistant("b"),))
        row = Comparison((user("q"),), completions, None, 1, "rows.jsonl", {})
        assert run([row], max_length=200)[1].num_examples == 1
        with pytest.raises(DataError, match="no row is left of 1"):
            run([row], truncation="right", max_length=PROMPT_TOKENS + 10)

    def test_left_keeps_one_prompt_for_both_sides(self) -> None:
        rows = [pair("q", "abcdef", "b"), pair("q", "a" * 30, "b", row=2)]
        examples, report = run(rows, truncation="left", max_length=18)
        (row,) = examples
        assert text(row, 0) == "assistant\n"
        assert [text(row, 1), text(row, 2)] == ["abcdef<|im_end|>\n", "b<|im_end|>\n"]
        assert (report.num_truncated, report.num_dropped, report.num_without_end) == (2, 1, 0)

    def test_left_keeps_the_bos(self) -> None:
        renderer = Renderer(byte_tokenizer(bos="<s>", adds_bos=True), CHATML)
        examples, _ = run([pair("q", "abcdef", "b")], truncation="left", max_length=9, renderer=renderer)
        assert text(examples[0], 0, renderer.tokenizer) == "<s>"
        assert text(examples[0], 1, renderer.tokenizer) == "abcdef<|im_end|>\n"
        with pytest.raises(DataError, match="no row is left of 1"):
            run([pair("q", "abcdef", "b")], truncation="left", max_length=8, renderer=renderer)

    def test_left_without_a_bos_leaves_a_token_that_predicts(self) -> None:
        examples, _ = run([pair("q", "abcdef", "b")], truncation="left", max_length=9)
        assert text(examples[0], 0) == "\n"
        with pytest.raises(DataError, match="no row is left of 1"):
            run([pair("q", "abcdef", "b")], truncation="left", max_length=8)

    def test_drop(self) -> None:
        examples, report = run([pair("q", "a", "b"), pair("q", "a" * 90, "b", row=2)], truncation="drop")
        assert (len(examples), report.num_truncated, report.num_dropped) == (1, 1, 1)

    def test_a_prompt_that_fills_the_row_leaves_nothing(self) -> None:
        with pytest.raises(DataError, match="no row is left of 1"):
            run([pair("q" * 60, "a", "b")], truncation="right")


class TestUnpaired:
    ROWS = (single("q", "a", True), single("q", "b", False, row=2), single("r", "c", True, row=3))

    def test_worth_is_a_column_and_the_next_answer_to_another_prompt_lies_aside(self) -> None:
        examples, report = run(list(self.ROWS))
        assert examples.columns["desirable"].tolist() == [1, 0, 1]
        assert examples.columns["desirable"].dtype == np.float32
        assert [text(row, 1)[0] + text(row, -1)[0] for row in examples] == ["ac", "bc", "ca"]
        for row, prompt, aside in zip(examples, "qqr", "cca", strict=True):
            alone = RENDERER.render(conversation(user(prompt), assistant(aside)), prompt_loss_weight=0.0)
            np.testing.assert_array_equal(whole(row, -1), alone.token_ids_L)
            inside_L = (row.branches_L == 0) | (row.branches_L == -1)
            np.testing.assert_array_equal(row.weights_L[inside_L], alone.weights_L)
        assert (report.kind, report.num_desirable, report.num_answer_tokens) == ("unpaired", 2, 6)
        assert report.lines()[-1].startswith("3 completions (2 good, 1 bad), ")

    def test_mismatches_are_fixed_by_the_data_alone(self) -> None:
        prompts = "aabbbca"
        rows = [single(prompt, "x", True, row=n) for n, prompt in enumerate(prompts, 1)]
        expected = [2, 2, 5, 5, 5, 6, 2]
        assert mismatched(rows) == expected
        # The same by search.
        for place, prompt in enumerate(prompts):
            after = [n % len(prompts) for n in range(place + 1, place + len(prompts))]
            assert expected[place] == next(n for n in after if prompts[n] != prompt)

    def test_mismatches_keep_the_worth_so_that_each_completion_of_paired_data_lies_aside_once(self) -> None:
        rows = [single(prompt, prompt + worth, worth == "+", row=1) for prompt in "abc" for worth in "+-"]
        assert mismatched(rows) == [2, 3, 4, 5, 0, 1]
        # Where one worth has one prompt alone, the next other prompt serves, whatever its worth.
        assert mismatched(rows[:3]) == [2, 2, 0]
        assert mismatched([*rows[1:2], *rows[:2], rows[2]]) == [3, 3, 3, 1]

    def test_one_prompt_alone_has_no_baseline(self) -> None:
        with pytest.raises(DataError, match=r"all 2 rows have one prompt\. KTO compares"):
            run(list(self.ROWS[:2]))
        examples, _ = run(list(self.ROWS[:2]), asides=False)
        assert examples.branches is not None
        assert set(examples.branches.tolist()) == {0, 1}

    @pytest.mark.parametrize("truncation", ["error", "drop", "right", "left"])
    def test_what_lies_aside_is_cut_and_never_a_reason_to_stop(self, truncation: str) -> None:
        rows = [single("q" * 9, "a", True), single("r", "b" * 9, False, row=2)]
        examples, report = run(rows, truncation=truncation, max_length=PROMPT_TOKENS + 8 + 3)
        assert (report.num_truncated, len(examples)) == (0, 2)
        assert [text(row, -1) for row in examples] == ["bbb", "a<|im_end|>\n"]

    def test_rows_beyond_a_chunk_find_their_mismatch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        expected, _ = run(list(self.ROWS))
        monkeypatch.setattr("ftk.data.prepare_comparisons.ROWS_AT_ONCE", 2)
        np.testing.assert_array_equal(run(list(self.ROWS))[0].token_ids, expected.token_ids)

    def test_an_answer_that_does_not_follow_another_prompt_says_why(self) -> None:
        template = CHATML.replace(
            "{%- for message in messages %}",
            "{%- for message in messages %}{%- if messages[0].content == 'q' and 'c' in message.content %}"
            "{{ raise_exception('no c') }}{%- endif %}",
        )
        assert template != CHATML
        with pytest.raises(DataError, match=r"^rows.jsonl:1: its prompt with the answer of the next row .* no c"):
            run(list(self.ROWS), renderer=Renderer(byte_tokenizer(bos=None), template))


class TestCache:
    def prepared(self, folder: Path, *, unpaired: bool = False, **how: Any) -> tuple[Examples, PreparationReport]:
        rows = [{"prompt": f"q{n}", "chosen": f"a{n}", "rejected": f"b{n}"} for n in range(6)]
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        comparisons = read_comparisons([Source(source=str(folder / "rows.jsonl"))], unpaired=unpaired)
        return run(comparisons, cache_folder=folder / "cache", **how)

    @pytest.mark.parametrize("unpaired", [False, True])
    def test_a_second_start_finds_the_same(
        self, unpaired: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first, told = self.prepared(tmp_path, unpaired=unpaired)
        monkeypatch.setattr("ftk.data.source.read_file", lambda *_, **__: pytest.fail("rows were read"))
        second, again = self.prepared(tmp_path, unpaired=unpaired)
        assert (told.cached, again.cached) == (False, True)
        for name in ("token_ids", "weights", "answers", "offsets", "rows_N", "sources_N", "branches"):
            one, other = getattr(first, name), getattr(second, name)
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
        assert list(first.columns) == list(second.columns) == (["desirable"] if unpaired else [])
        for name, column in first.columns.items():
            np.testing.assert_array_equal(column, second.columns[name])
        assert told.lines()[1:] == [line.replace(" (from the cache)", "") for line in again.lines()[1:]]
        assert "format pairs (found from the columns)" in again.lines()[0]

    def test_whatever_rows_depend_on_renders_again(self, tmp_path: Path) -> None:
        self.prepared(tmp_path)
        ways: Sequence[dict[str, Any]] = (
            {"unpaired": True},
            {"unpaired": True, "asides": False},
            {"max_length": 60},
            {"truncation": "right"},
        )
        for how in ways:
            assert not self.prepared(tmp_path, **how)[1].cached, how
            assert self.prepared(tmp_path, **how)[1].cached, how
        assert self.prepared(tmp_path)[1].cached


def test_statistics_by_hand() -> None:
    examples, _ = run([pair("q", "abcd", "b"), pair("q", "a", "bcdefghi", row=2), pair("q", "abcd", "b", row=3)])
    counted = statistics(examples, max_length=28)
    assert (counted.num_rows, counted.num_duplicates, counted.num_too_long) == (3, 1, 1)
    assert (counted.shortest, counted.median, counted.longest) == (26, 26, 30)
    assert counted.num_tokens == 3 * PROMPT_TOKENS + 2 * (6 + 3) + (3 + 10)
    assert counted.prompt_weight_share == 0
    assert [(one.name, one.num_completions, one.shortest, one.median, one.longest) for one in counted.completions] == [
        ("chosen", 3, 3, 6, 6),
        ("rejected", 3, 3, 3, 10),
    ]
    assert counted.chosen_longer_share == pytest.approx(2 / 3)
    unpaired = [single("q", "a", True), single("q", "bc", False, row=2), single("q", "def", False, row=3)]
    counted = statistics(run(unpaired, asides=False)[0], max_length=28)
    assert [(one.name, one.num_completions, one.longest) for one in counted.completions] == [
        ("good", 1, 3),
        ("bad", 2, 5),
    ]
    assert counted.chosen_longer_share is None


def test_overlap_of_pairs_and_of_prompts() -> None:
    train, _ = run([pair("q", "a", "b"), pair("r", "c", "d", row=2)])
    held_out, _ = run([pair("q", "a", "b"), pair("r", "c", "x", row=2), pair("z", "a", "b", row=3)])
    found = overlap(train, held_out)
    assert (found.num_rows, found.num_prompts) == (1, 2)
