"""Comparisons as the model sees them: trunk and branches, their proof, truncation, and the cache."""

from typing import Any

import numpy as np
import pytest
from comparisons_stand_in import PROMPT_TOKENS, RENDERER, pair, run, single, text, whole
from data_stand_in import assistant, byte_tokenizer, conversation, user
from test_render_answers import CHATML, TOKENS

from ftk.core.errors import DataError
from ftk.core.types import Comparison
from ftk.data.branches import render_branches
from ftk.data.render import Renderer, renderer_for
from ftk.data.show import coloured, parts, plain, stretches
from ftk.data.template_text import shipped_templates


@pytest.mark.parametrize("name", shipped_templates())
@pytest.mark.parametrize("adds_bos", [False, True])
def test_trunk_and_completion_are_the_whole_conversation(name: str, adds_bos: bool) -> None:
    tokens = {"tokens": TOKENS[name]} if name in TOKENS else {}
    renderer = renderer_for(byte_tokenizer(adds_bos=adds_bos, **tokens), chat_template=name)
    (row,) = render_branches(renderer, [pair("a?", "good", "no")])
    for branch, answer in ((1, "good"), (2, "no")):
        alone = renderer.render(conversation(user("a?"), assistant(answer)), prompt_loss_weight=0.0)
        inside_L = (row.branches_L == 0) | (row.branches_L == branch)
        np.testing.assert_array_equal(row.token_ids_L[inside_L], alone.token_ids_L)
        # The mask is that of supervised finetuning: the completion with its end of turn.
        np.testing.assert_array_equal(row.weights_L[inside_L], alone.weights_L)
        np.testing.assert_array_equal(row.answers_L[inside_L], alone.answers_L)
        learned = row.token_ids_L[inside_L & (row.weights_L == 1)]
        assert learned[-1] == renderer.end_token_ids[0]
        assert renderer.tokenizer.decode(learned[:-1]) == answer
    trunk = row.token_ids_L[row.branches_L == 0].tolist()
    assert trunk == renderer.render_prompt(conversation(user("a?"), assistant("x")))
    assert (row.token_ids_L == renderer.bos_token_id).sum() == int(renderer.bos_token_id in trunk)
    assert sorted(row.branches_L.tolist()) == row.branches_L.tolist()


def straddling_tokenizer(*more_merges: tuple[str, str]) -> Any:
    """Joins the space before an answer to its first letter `b`, and to no other."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<e>": 0, "a": 1, ":": 2, "Ġ": 3, "b": 4, "c": 5, "Ġb": 6, ":Ġ": 7}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[("Ġ", "b"), *more_merges]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(["<e>"])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<e>")
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m.content + (eos_token if m.role == 'assistant' else ': ') }}{% endfor %}"
    )
    return tokenizer


@pytest.mark.parametrize(
    ("chosen", "rejected", "trunk", "sides"),
    [
        ("b", "c", ["a", ":"], (["Ġb", "<e>"], ["Ġ", "c", "<e>"])),  # over the border in one of them
        ("c", "b", ["a", ":"], (["Ġ", "c", "<e>"], ["Ġb", "<e>"])),
        ("b", "bc", ["a", ":"], (["Ġb", "<e>"], ["Ġb", "c", "<e>"])),  # in both: it belongs to the completions
        ("ca", "cc", ["a", ":", "Ġ"], (["c", "a", "<e>"], ["c", "c", "<e>"])),
    ],
)
def test_the_trunk_ends_where_the_tokens_of_both_sides_agree(
    chosen: str, rejected: str, trunk: list[str], sides: tuple[list[str], list[str]]
) -> None:
    tokenizer = straddling_tokenizer()
    renderer = Renderer(tokenizer)
    (row,) = render_branches(renderer, [pair("a", chosen, rejected)])
    for branch, expected in enumerate((trunk, *sides)):
        assert tokenizer.convert_ids_to_tokens(row.token_ids_L[row.branches_L == branch]) == expected
    for branch, answer in ((1, chosen), (2, rejected)):
        alone = renderer.render(conversation(user("a"), assistant(answer)), prompt_loss_weight=0.0)
        np.testing.assert_array_equal(whole(row, branch), alone.token_ids_L)
        inside_L = (row.branches_L == 0) | (row.branches_L == branch)
        np.testing.assert_array_equal(row.weights_L[inside_L], alone.weights_L)


def test_the_trunk_ends_before_a_token_of_the_prompt_that_an_answer_changes() -> None:
    tokenizer = straddling_tokenizer((":", "Ġ"))
    (row,) = render_branches(Renderer(tokenizer), [pair("a", "b", "c")])
    found = [tokenizer.convert_ids_to_tokens(row.token_ids_L[row.branches_L == branch]) for branch in range(3)]
    # `: ` is one token of the prompt unless the answer takes its space.
    assert found == [["a"], [":", "Ġb", "<e>"], [":Ġ", "c", "<e>"]]
    assert row.weights_L.tolist() == [0, 0, 1, 1, 0, 1, 1]


def test_a_prompt_of_which_no_token_is_left_is_an_error() -> None:
    renderer = Renderer(straddling_tokenizer((":", "Ġ")))
    with pytest.raises(DataError, match=r"^rows.jsonl:3: the row has no token of a prompt before its answers"):
        render_branches(renderer, [pair("", "b", "c", row=3)])


def test_answers_of_the_prompt_are_not_learned_and_all_of_a_long_completion_are() -> None:
    prompt = (user("a"), assistant("shown"), user("b"))
    completions = ((assistant("one"), user("c"), assistant("two")), (assistant("three"),))
    (row,) = render_branches(RENDERER, [Comparison(prompt, completions, None, 1, "rows.jsonl", {})])
    learned = [RENDERER.tokenizer.decode(row.token_ids_L[row.answers_L & (row.branches_L == n)]) for n in (0, 1, 2)]
    assert learned == ["", "one<|im_end|>two<|im_end|>", "three<|im_end|>"]


def test_sides_that_render_alike_are_an_error() -> None:
    answer = "message['content'] + '<|im_end|>' }}\n        {%- endg"
    strips = CHATML.replace(answer, answer.replace("['content']", "['content'] | trim"))
    assert strips != CHATML
    renderer = Renderer(byte_tokenizer(bos=None), strips)
    with pytest.raises(DataError, match=r"^rows.jsonl:4: chosen and rejected are equal once rendered"):
        render_branches(renderer, [pair("q", "a", "a ", row=4)])


def test_flat_arrays_hold_the_branches() -> None:
    examples, report = run([pair("q", "good", "no"), pair("r", "a", "bcd", row=2)])
    assert examples.columns == {}
    assert [text(examples[1], branch) for branch in (1, 2)] == ["a<|im_end|>\n", "bcd<|im_end|>\n"]
    assert examples[1].weights_L.sum() == 1 + 1 + 3 + 1
    assert (report.kind, report.num_examples, report.num_desirable) == ("pairs", 2, None)
    assert report.num_answer_tokens == (4 + 1 + 2 + 1) + (1 + 1 + 3 + 1)
    assert report.longest == PROMPT_TOKENS + 4 + 2
    assert report.lines() == [f"2 pairs, {report.num_tokens} tokens with each prompt once, of which 14 answers"]


def test_stretches_say_which_part_they_are() -> None:
    examples, _ = run([pair("é", "🙂", "no")])
    row = stretches(examples[0], RENDERER.tokenizer)
    assert [(name, plain(some)) for name, some in parts(row)] == [
        ("prompt", "⟨<|im_start|>user\né<|im_end|>\n<|im_start|>assistant\n⟩"),
        ("chosen", "⟦🙂<|im_end|>⟧⟨\n⟩"),
        ("rejected", "⟦no<|im_end|>⟧⟨\n⟩"),
    ]
    styles = [str(span.style) for span in coloured(row).spans]
    assert styles == ["bright_black", "bold green", "bright_black", "bold green", "bright_black"]
    examples, _ = run([single("q", "a", True), single("q", "b", False, row=2)], asides=False)
    names = [[name for name, _ in parts(stretches(example, RENDERER.tokenizer))] for example in examples]
    assert names == [["prompt", "good completion"], ["prompt", "bad completion"]]
