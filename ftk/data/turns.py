"""Where the answers lie in a rendered conversation, proven by rendering it piece by piece."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ftk.core.errors import DataError
from ftk.core.types import Message
from ftk.data.formats.reasoning import REASONING
from ftk.data.template import PROBE, ChatTemplate, Span

Tools = Sequence[Mapping[str, Any]]
THOUGHT_BEGINS, THOUGHT_ENDS = "<think>", "</think>"


class Turn(NamedTuple):
    """One answer in the text of a conversation."""

    message: int
    """Its place among the messages, from 0."""
    start: int
    """First character after the prompt to it."""
    spans: tuple[Span, ...]
    """What is learned of it, its end-of-turn token included; mostly one span."""
    end_token: str
    reasoning: Span | None = None
    """What it thinks before it answers, where it does."""


def render_turns(
    template: ChatTemplate, messages: Sequence[Message], *, tools: Tools, turns: Sequence[int], place: str
) -> tuple[str, list[Turn]]:
    """The text of a conversation, and the answers at the places `turns` of its messages.

    An answer begins where the template, given the messages before it, ends the prompt, and it ends with the end-of-turn
    token. Each prompt must be the very beginning of the whole text: then what is learned is what is asked for later.
    Where the template marks answers with `{% generation %}`, what it leaves unmarked is not learned either.

    Raises:
        DataError: the template fails, renders differently in pieces, or ends an answer without a token.
    """
    text, marks = template.render_marked(messages, tools=tools, place=place)
    found = []
    for turn in turns:
        start = _start(template, text, messages, tools=tools, turn=turn, place=place)
        end, token = _end(template, text, messages, tools=tools, turn=turn, start=start, place=place)
        spans: tuple[Span, ...] = ((start, end),)
        _check_answer(messages[turn], text[start : end - len(token)], number=turn + 1, place=place)
        if template.has_markers:
            spans = _marked(marks, start=start, end=end, token=token, place=place)
        thought = reasoning_span(text, messages[turn], start=start, end=end - len(token))
        found.append(Turn(turn, start, spans, token, thought))
    _check_prompts(template, text, messages, tools=tools, place=place)
    return text, found


def _start(
    template: ChatTemplate, text: str, messages: Sequence[Message], *, tools: Tools, turn: int, place: str
) -> int:
    if turn == 0:
        raise DataError(
            "the conversation begins with an answer; before it there must be a prompt", place=place, finding="empty"
        )
    prompt = template.render_prompt(messages[:turn], tools=tools, place=place)
    if not text.startswith(prompt):
        raise _differs(prompt, text, place=place)
    return len(prompt)


def _differs(prompt: str, text: str, *, place: str) -> DataError:
    at = _common_prefix(prompt, text)
    return DataError(
        "the chat template renders this row differently in pieces: where it asks for an answer it writes "
        f"{_excerpt(prompt, at)}, and in the whole conversation {_excerpt(text, at)}. What is learned would not be "
        "what is asked for later. Give the row what the template expects (for example its thinking), learn from the "
        "last answer alone (task.train_on=last), or name another template in data.chat_template",
        place=place,
    )


def _excerpt(text: str, at: int) -> str:
    return repr(("…" if at > 20 else "") + text[max(0, at - 20) : at + 40])


def _end(
    template: ChatTemplate, text: str, messages: Sequence[Message], *, tools: Tools, turn: int, start: int, place: str
) -> tuple[int, str]:
    upto = text if turn == len(messages) - 1 else template.render(messages[: turn + 1], tools=tools, place=place)
    if text.startswith(upto):
        answer = upto.removesuffix(template.ending.rest).rstrip()
        token = template.ending.token
        if not answer.endswith(token) and messages[turn].get("tool_calls"):
            # A call of a tool may end with a token of its own.
            token = template.closing_token(answer) or token
        if len(answer) - len(token) >= start and answer.endswith(token):
            return len(answer), token
    else:
        # The template writes an answer otherwise where it is the last message (thinking kept, another end token): look
        # for the end of this one before the content of the message after it.
        limit = _start_of_next_content(template, text, messages, tools=tools, turn=turn, place=place)
        ends = {text.rfind(token, start, limit) + len(token): token for token in template.inner_endings}
        end = max(ends)
        if end - len(ends[end]) >= start:
            return end, ends[end]
    raise DataError(
        f"the chat template does not end the answer of message {turn + 1} with {template.ending.token!r}, so the model "
        "would not learn to stop. Name another template in data.chat_template",
        place=place,
        finding="no_end",
    )


def _start_of_next_content(
    template: ChatTemplate, text: str, messages: Sequence[Message], *, tools: Tools, turn: int, place: str
) -> int:
    after = {**messages[turn + 1], "content": PROBE}
    other = template.render([*messages[: turn + 1], after, *messages[turn + 2 :]], tools=tools, place=place)
    if PROBE not in other:
        raise _left_out(turn + 2, messages[turn + 1], place=place)
    return _common_prefix(text, other)


def reasoning_span(text: str, message: Message, *, start: int, end: int) -> Span | None:
    """Where the reasoning lies in the answer that is `text[start:end]`: what the message keeps apart, or what its
    content has before `</think>`. The marks around it do not belong to it."""
    apart = str(message.get(REASONING) or "").strip()
    if apart:
        # Before what is answered: a template may drop the reasoning, and the answer may say the same words.
        answer = str(message.get("content") or "").strip()
        answered = text.rfind(answer, start, end) if answer else end
        first = text.find(apart, start, answered if answered >= 0 else end)
        return None if first < 0 else (first, first + len(apart))
    last = text.rfind(THOUGHT_ENDS, start, end)
    if last < 0:
        return None
    opened = text.find(THOUGHT_BEGINS, start, last)
    # Some templates open the thought in the prompt.
    return (start if opened < 0 else opened + len(THOUGHT_BEGINS), last)


def _check_answer(message: Message, answer: str, *, number: int, place: str) -> None:
    calls = message.get("tool_calls") or ()
    for call in calls:
        name = str((call.get("function") or call).get("name"))
        if name not in answer:
            raise _left_out(number, message, place=place, what=f"the call of tool {name} in")
    content = str(message.get("content") or "").strip()
    # Templates may move or drop the thinking before the last of these marks; the answer proper they keep.
    proper = content.rpartition(THOUGHT_ENDS)[2].strip()
    if proper not in answer or not answer.strip():
        raise _left_out(number, message, place=place)


def _check_prompts(template: ChatTemplate, text: str, messages: Sequence[Message], *, tools: Tools, place: str) -> None:
    names = [str((tool.get("function") or tool).get("name")) for tool in tools]
    if tools and ("tools" not in template.text or any(name not in text for name in names)):
        raise DataError(
            "the row has tools, and the chat template has no place for them. Take them out, or name a template that "
            "knows tools in data.chat_template, such as chatml_tools",
            place=place,
        )
    for number, message in enumerate(messages, start=1):
        if message["role"] in ("user", "system") and str(message.get("content") or "").strip() not in text:
            raise _left_out(number, message, place=place)
        if REASONING in message and not template.knows_reasoning:
            raise DataError(
                f"message {number} has reasoning ({REASONING}), and the chat template has no place for it. Take it "
                "out, write it into the content, or name a template that knows it in data.chat_template, such as "
                "chatml_tools",
                place=place,
            )
    dropped = template.dropped_message(messages, tools=tools)
    if dropped is not None:
        raise _left_out(dropped + 1, messages[dropped], place=place)


def _left_out(number: int, message: Message, *, place: str, what: str = "") -> DataError:
    return DataError(
        f"the chat template leaves out or changes {what + ' ' if what else ''}message {number} ({message['role']}). "
        "Change the row, or name another template in data.chat_template",
        place=place,
    )


def _marked(marks: Sequence[Span], *, start: int, end: int, token: str, place: str) -> tuple[Span, ...]:
    before_token = end - len(token)
    inside = [(max(start, first), min(before_token, last)) for first, last in marks]
    inside = [span for span in inside if span[0] < span[1]]
    if not inside:
        raise DataError(
            "the chat template's {% generation %} markers lie on no part of an answer. Name another template in "
            "data.chat_template, or take the markers out: then ftk finds the answers itself",
            place=place,
        )
    # The end-of-turn token is learned even where the markers leave it out.
    return (*inside[:-1], (inside[-1][0], end)) if inside[-1][1] == before_token else (*inside, (before_token, end))


def _common_prefix(one: str, other: str) -> int:
    size = min(len(one), len(other))
    if one[:size] == other[:size]:
        return size
    low, high = 0, size
    while low < high:  # bisection over equal prefixes: slices compare in C
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low
