"""What a person sees of the data: stretches of one weight, statistics, duplicates, overlap."""

from data_stand_in import assistant, byte_tokenizer, conversation, examples_of, user
from test_data_prepare import run
from test_render_answers import CHATML

from ftk.data.render import Renderer
from ftk.data.show import coloured, plain, stretches
from ftk.data.statistics import bars, overlap, statistics

RENDERER = Renderer(byte_tokenizer(bos=None), CHATML)


def rows_of(*pairs: tuple[str, str]):
    return [conversation(user(question), assistant(answer), row=row) for row, (question, answer) in enumerate(pairs, 1)]


def test_stretches_are_whole_text_in_order() -> None:
    examples, _ = run(rows_of(("é?", "🙂!")), renderer=RENDERER)
    row = stretches(examples[0], RENDERER.tokenizer)
    assert [one.weight for one in row] == [0.0, 0.1, 1.0, 0.1]
    assert [one.is_answer for one in row] == [False, False, True, False]
    assert sum(one.num_tokens for one in row) == len(examples[0].token_ids_L)
    assert plain(row) == "⟨<|im_start|>⟩user\né?<|im_end|>\n<|im_start|>assistant\n⟦🙂!<|im_end|>⟧\n"


def test_colours_follow_the_weights() -> None:
    examples, _ = run(rows_of(("q", "a")), renderer=RENDERER, prompt_loss_weight=0.5)
    text = coloured(stretches(examples[0], RENDERER.tokenizer))
    assert [str(span.style) for span in text.spans] == ["bright_black", "yellow", "bold green", "yellow"]
    assert text.plain == RENDERER.tokenizer.decode(examples[0].token_ids_L)


def test_statistics_by_hand() -> None:
    examples = examples_of([4, 6, 6, 20])
    examples.token_ids[10:16] = examples.token_ids[4:10]
    counted = statistics(examples, max_length=10, num_bins=4)
    assert (counted.num_rows, counted.num_tokens) == (4, 36)
    assert (counted.shortest, counted.median, counted.longest) == (4, 6, 20)
    assert (counted.num_too_long, counted.num_duplicates) == (1, 1)
    assert (counted.num_answer_tokens, counted.answer_share) == (18, 0.5)
    assert counted.histogram == ((4, 8, 3), (9, 13, 0), (14, 18, 0), (19, 23, 1))
    assert bars(counted.histogram, width=3)[0].split() == ["4", "to", "8", "███", "3"]


def test_one_length_has_one_bar() -> None:
    assert statistics(examples_of([5, 5]), max_length=10).histogram[0] == (5, 5, 2)


def test_overlap_of_rows_and_of_prompts() -> None:
    train, _ = run(rows_of(("one", "1"), ("two", "2"), ("two", "2")), renderer=RENDERER)
    held_out, _ = run(rows_of(("one", "1"), ("two", "zwei"), ("three", "3")), renderer=RENDERER)
    found = overlap(train, held_out)
    assert (found.num_rows, found.num_prompts) == (1, 2)
    assert statistics(train, max_length=99).num_duplicates == 1
