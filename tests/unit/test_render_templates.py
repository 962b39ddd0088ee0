"""The chat templates of the well-known families, as TRL's wheel carries them: what is learned is exactly the answers
with their end of turn, or there is an error that says why not."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from data_stand_in import assistant, byte_tokenizer, control_tokens_of, conversation, user

from ftk.core.errors import DataError
from ftk.core.types import Conversation
from ftk.data.render import Renderer

_SPEC = find_spec("trl")
FOLDER = Path(_SPEC.origin).parent / "chat_templates" if _SPEC and _SPEC.origin else None
NAMES = sorted(path.stem for path in FOLDER.glob("*.jinja")) if FOLDER else []
pytestmark = pytest.mark.skipif(not NAMES, reason="trl, of the development extra, is not installed")

ONE_TURN = conversation(user("one?"), assistant("first answer"))
TWO_TURNS = conversation(user("one?"), assistant("first answer"), user("two?"), assistant("second answer"))
THINKING = conversation(user("one?"), assistant("<think>\nhm\n</think>\n\nfirst answer"))

# What the model writes itself between the prompt that asks for an answer and the answer.
EMPTY_THOUGHT = "<think>\n\n</think>\n\n"
OPENED_THOUGHT = "\n</think>\n\n"  # the prompt ends with <think> and a line break
OPENINGS = {
    "glm4moe_training": "\n<think></think>\n",
    "gptoss": "<|channel|>final<|message|>",
    "gptoss_training": "<|channel|>final<|message|>",
    "idefics3": " ",
    "idefics3_training": " ",
    "muse_glimmer": " to=user<|message|>",
    "muse_glimmer_training": " to=user<|message|>",
    "qwen3": EMPTY_THOUGHT,
    "qwen3_training": EMPTY_THOUGHT,
    "qwen3_5_think": OPENED_THOUGHT,
    "qwen3_5_think_training": OPENED_THOUGHT,
    "qwen3_6": OPENED_THOUGHT,
    "qwen3_6_training": OPENED_THOUGHT,
    "qwen3_8": OPENED_THOUGHT,
    "qwen3_8_training": OPENED_THOUGHT,
    "smolvlm": " ",
    "smolvlm_training": " ",
}
ENDINGS = {
    "cohere": "<|END_OF_TURN_TOKEN|>",
    "cohere2": "<|END_RESPONSE|>",
    "diffusion": "<turn|>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "gemma4": "<turn|>",
    "glm4moe": "<|user|>",
    "gptoss": "<|return|>",
    "idefics3": "<end_of_utterance>",
    "lfm2": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "llava": "</s>",
    "muse": "<|eot|>",
    "nemotron": "<|im_end|>",
    "phi3": "<|end|>",
    "qwen2": "<|im_end|>",
    "qwen3": "<|im_end|>",
    "smolvlm": "<end_of_utterance>",
}

DIFFERS = "renders this row differently in pieces"
NO_END = "writes nothing after an answer"
# An answer without thinking: the prompt that asks for it opens a thought, the whole conversation has none.
REFUSES_ANY_ANSWER = {
    "deepseek_r1_distill": DIFFERS,
    "deepseek_r1_distill_training": DIFFERS,
    "deepseekv3": DIFFERS,
    "deepseekv3_training": DIFFERS,
    "glm4moe": NO_END,
    **{name: DIFFERS for name in NAMES if name.startswith("nemotron")},
}
# The same for earlier answers alone, whose thought is dropped.
REFUSES_EARLIER_ANSWERS = {"qwen3_5_nothink": DIFFERS, "qwen3_5_think": DIFFERS, "qwen3_6": DIFFERS}
# With a thought in the answer: it is dropped by DeepSeek's own templates, even from the last answer.
DROPS_THOUGHTS = {"deepseek_r1_distill", "deepseekv3", "deepseekv3_training"}


def renderer_of(name: str) -> Renderer:
    assert FOLDER is not None
    text = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return Renderer(byte_tokenizer(tokens=control_tokens_of(text)), text)


def learned(renderer: Renderer, row: Conversation) -> str:
    rendered = renderer.render(row)
    return str(renderer.tokenizer.decode(rendered.token_ids_L[rendered.answers_L]))


def ending_of(name: str) -> str:
    return ENDINGS[max((family for family in ENDINGS if name.startswith(family)), key=len)]


def expect_refusal(name: str, row: Conversation, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        renderer_of(name).render(row)


@pytest.mark.parametrize("name", NAMES)
def test_one_answer(name: str) -> None:
    if name in REFUSES_ANY_ANSWER:
        expect_refusal(name, ONE_TURN, REFUSES_ANY_ANSWER[name])
        return
    renderer = renderer_of(name)
    assert learned(renderer, ONE_TURN) == OPENINGS.get(name, "") + "first answer" + ending_of(name)
    assert renderer.tokenizer.decode(renderer.end_token_ids) == ending_of(name)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSES_ANY_ANSWER])
def test_end_of_turn_is_trained(name: str) -> None:
    renderer = renderer_of(name)
    rendered = renderer.render(ONE_TURN, prompt_loss_weight=0.0)
    (last,) = rendered.weights_L.nonzero()[0][-1:]
    assert rendered.weights_L[last] == 1.0
    assert rendered.token_ids_L[last] == renderer.end_token_ids[0]


@pytest.mark.parametrize("name", NAMES)
def test_two_answers(name: str) -> None:
    refused = {**REFUSES_ANY_ANSWER, **REFUSES_EARLIER_ANSWERS}
    if name in refused:
        expect_refusal(name, TWO_TURNS, refused[name])
        return
    opening, end = OPENINGS.get(name, ""), ending_of(name)
    first = opening + "first answer" + end
    if name == "qwen3":  # an earlier answer has no thought, neither in the prompts of later ones
        first = "first answer" + end
    if name.startswith("gptoss"):  # an earlier answer ends otherwise
        first = opening + "first answer<|end|>"
    assert learned(renderer_of(name), TWO_TURNS) == first + opening + "second answer" + end


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSES_ANY_ANSWER])
def test_only_the_last_of_two_answers(name: str) -> None:
    renderer = renderer_of(name)
    rendered = renderer.render(TWO_TURNS, train_on="last")
    text = renderer.tokenizer.decode(rendered.token_ids_L[rendered.answers_L])
    assert text == OPENINGS.get(name, "") + "second answer" + ending_of(name)


@pytest.mark.parametrize("name", sorted({*REFUSES_ANY_ANSWER} - {"glm4moe"}))
def test_an_answer_with_the_thought_that_the_template_asks_for(name: str) -> None:
    if name in DROPS_THOUGHTS:
        expect_refusal(name, THINKING, DIFFERS)
        return
    end = "<｜end▁of▁sentence｜>" if name.startswith("deepseek") else ending_of(name)
    assert learned(renderer_of(name), THINKING) == "hm\n</think>\n\nfirst answer" + end


CALL = {"type": "function", "function": {"name": "lookup", "arguments": {"key": 1}}}
TOOL_USE = conversation(
    user("one?"),
    assistant("", tool_calls=[CALL]),
    {"role": "tool", "name": "lookup", "content": "42"},
    assistant("first answer"),
)
FAILS = "the chat template fails on this row"
DROPS_CALLS = "leaves out or changes the call of tool lookup"
DROPS_RESULTS = r"leaves out or changes message 3 \(tool\)"
REFUSES_TOOLS = {
    **{name: FAILS for name in NAMES if name.startswith(("cohere", "llava"))},
    **{name: FAILS for name in ("gemma", "gemma_training", "gemma3", "gemma3_training")},
    **{name: DROPS_RESULTS for name in NAMES if name.startswith("phi3")},
    **{name: DROPS_CALLS for name in NAMES if name.startswith(("idefics3", "smolvlm", "qwen2_5_vl"))},
    **{name: DROPS_CALLS for name in ("lfm2", "lfm2_training", "llama3", "llama3_training")},
}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in REFUSES_ANY_ANSWER])
def test_calls_of_tools_are_learned_or_refused_but_never_dropped(name: str) -> None:
    if name in REFUSES_TOOLS:
        expect_refusal(name, TOOL_USE, REFUSES_TOOLS[name])
        return
    text = learned(renderer_of(name), TOOL_USE)
    assert "lookup" in text
    assert "42" not in text
    assert text.endswith("first answer" + ending_of(name))
