"""`ftk data fix`: what is mended and what is left alone."""

import random
import unicodedata
from typing import Any

import pytest

from ftk.data.check.whitespace import unseen_in
from ftk.data.fix import MECHANICAL, TEXT_FIXES
from ftk.data.fix.empty import is_empty
from ftk.data.fix.text_fix import Text
from ftk.data.fix.texts import any_format_of, texts_of, with_texts
from ftk.data.source import SourceRow


def mend(value: str, *names: str, begins: bool = True, ends: bool = True) -> str:
    for name, fix in TEXT_FIXES.items():
        if name in names or (not names and not fix.when_asked):
            value = fix.fix(Text(value, begins, ends))
    return value


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a\r\nb\rc\x0bd\x0ce\x85f\u2028g\u2029h", "a\nb\nc\nd\ne\nf\ng\nh"),
        ("a\x00b\x07c\x7fd\u200be\ufefff\xadg\u202eh", "abcdefgh"),
        ("half \ud83d of one", "half  of one"),
        ("e\u0301t\u00e9", "\u00e9t\u00e9"),
        (" \n\ttext\n ", "text"),
        # Left alone: indentation, line breaks of Markdown, tabs, joiners of emoji and Persian, typography.
        ("def f():\n    return  1", "def f():\n    return  1"),
        ("a  \nb\tc", "a  \nb\tc"),
        ("\U0001f469\u200d\U0001f4bb \u0645\u06cc\u200c\u062e", "\U0001f469\u200d\U0001f4bb \u0645\u06cc\u200c\u062e"),
        ("10\u00a0000 \u00bd \uff21 \ufb01 \u00c3\u00a9", "10\u00a0000 \u00bd \uff21 \ufb01 \u00c3\u00a9"),
    ],
)
def test_mechanical_fixes(before: str, after: str) -> None:
    assert mend(before) == after


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("lower_case", "ÉCOLE İ", "école i̇"),
        ("compatibility", "Ａ ﬁ 10\u00a0000 ①", "A fi 10 000 1"),
        ("collapse_spaces", "a  b \t c \n\n\n\n d", "a b c\n\nd"),
        ("mojibake", "cafÃ© â€œxâ€\x9d ðŸ˜€ Ã\xa0", "café “x” 😀 à"),
        ("mojibake", "café Â São Ãx É", "café Â São Ãx É"),
    ],
)
def test_what_may_change_meaning_is_done_by_name(name: str, before: str, after: str) -> None:
    assert TEXT_FIXES[name].when_asked
    assert name not in MECHANICAL
    assert mend(before, name) == after


def test_mojibake_is_undone_for_every_character() -> None:
    """What Windows-1252 leaves undefined is read as Latin-1, as browsers do."""
    for code in (*range(0xA0, 0x3000), *range(0x1F600, 0x1F650)):
        misread = "".join(
            bytes([byte]).decode("cp1252") if byte not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(byte)
            for byte in chr(code).encode()
        )
        assert mend(misread, "mojibake") == chr(code)


@pytest.mark.parametrize("names", [(), tuple(TEXT_FIXES)])
def test_mending_twice_changes_nothing_more_and_the_check_is_content(names: tuple[str, ...]) -> None:
    rng = random.Random(0)
    letters = [*range(0x250), *range(0x2000, 0x2070), *range(0x300, 0x310), 0x1E9B, 0x212A, 0x3392, 0xFB01, 0xD800]
    for _ in range(3000):
        text = "".join(chr(rng.choice(letters)) for _ in range(12))
        once = mend(text, *(name for name in names if name != "mojibake"))
        assert mend(once, *(name for name in names if name != "mojibake")) == once
        assert unseen_in(once) is None
        assert unicodedata.is_normalized("NFC", once)


def test_blanks_between_a_prompt_and_its_completion_are_part_of_the_text() -> None:
    row = {"prompt": " def f():\n", "completion": "    return 1 \n"}
    fix = TEXT_FIXES["whitespace"].fix
    assert with_texts(row, any_format_of(row), lambda text, where: fix(text)) == {
        "prompt": "def f():\n", "completion": "    return 1",
    }  # fmt: skip
    row = {"prefix": "a ", "suffix": " b"}  # of no known format
    assert with_texts(row, any_format_of(row), lambda text, where: fix(text)) == row


SPOKEN = [
    ({"question": "Q", "answer": "A", "id": "N"}, ["Q", "A"]),
    ({"instruction": "Q", "input": "I", "output": "A", "system": "S"}, ["Q", "A", "I", "S"]),
    ({"prompt": "Q", "chosen": "A", "rejected": "B"}, ["A", "B", "Q"]),
    ({"prompt": "Q", "completion": "A", "label": "N"}, ["A", "Q"]),
    ({"text": "T", "id": "X", "number": 3}, ["T", "X"]),
    ({"messages": [{"role": "user", "content": "Q", "name": "N"}, {"role": "assistant", "content": [
        {"type": "text", "text": "A"}, {"type": "text", "text": "B"}]}], "tools": [{"name": "N"}]}, ["Q", "A", "B"]),
    ({"messages": [{"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "N"}}]},
        {"role": "tool", "content": "R", "tool_call_id": "N"}]}, ["R"]),
    ({"conversations": [{"from": "human", "value": "Q"}, {"from": "function_call", "value": "N"}]}, ["Q"]),
    ({"conversations": '[{"from": "human", "value": "Q"}]'}, ["Q"]),
    ({"contents": [{"role": "user", "parts": [{"text": "Q"}]}, {"role": "model", "parts": [{"functionCall": {
        "name": "N"}}, {"text": "A"}]}], "systemInstruction": {"role": "N", "parts": [{"text": "S"}]}},
        ["Q", "A", "S"]),
    ({"prompt": "Q", "completions": [{"response": "A", "rating": 3}, {"response": "B", "rating": 4}]}, ["A", "B", "Q"]),
]  # fmt: skip


@pytest.mark.parametrize(("row", "texts"), SPOKEN)
def test_the_texts_of_a_row_are_what_someone_says(row: dict[str, Any], texts: list[str]) -> None:
    format = any_format_of(row)
    assert texts_of(row, format) == texts
    lower = with_texts(row, format, lambda text, where: text.value.lower())
    assert texts_of(lower, format) == [text.lower() for text in texts]
    # All else stays: with the texts put back it is the row.
    back = with_texts(lower, format, lambda text, where: text.value.upper())
    assert back == row


EMPTY = [
    ({"question": " ", "answer": "a"}, True),
    ({"question": "q", "answer": None}, True),
    ({"question": "q", "answer": "a"}, False),
    ({"messages": []}, True),
    ({"messages": [{"role": "user", "content": "q"}]}, True),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None}]}, True),
    ({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": "a"}]}, True),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}, False),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "weight": 0},
        {"role": "user", "content": "r"}, {"role": "assistant", "content": "a"}]}, False),
    ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": None, "tool_calls": [
        {"function": {"name": "f", "arguments": "{}"}}]}]}, False),
    ({"contents": [{"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "\n"}]}]}, True),
    ({"prompt": "q", "chosen": "a", "rejected": ""}, True),
    ({"text": "\n", "id": ""}, True),
    ({"text": "t"}, False),
]  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), EMPTY)
def test_empty_and_one_sided_rows(row: dict[str, Any], expected: bool) -> None:
    assert is_empty(row, any_format_of(row)) == expected


def test_a_row_keeps_what_is_no_text() -> None:
    row = SourceRow(1, "r", {"question": "q", "answer": 3, "blob": b"x"})
    assert with_texts(row.columns, any_format_of(row.columns), lambda text, where: "T") == {
        "question": "T", "answer": 3, "blob": b"x",
    }  # fmt: skip
