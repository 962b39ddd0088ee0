"""A chat template: where its text comes from, how it renders, and how it ends an answer."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ftk.core.errors import DataError
from ftk.core.types import Message
from ftk.data.template_arguments import check_arguments
from ftk.data.template_fault import told
from ftk.data.template_limits import TemplateLimits, TooLong
from ftk.data.template_text import shipped_templates

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NAME_ANOTHER = "Name another in data.chat_template, shipped or a Jinja file"
PROBE = "ftkprobe"
"""An answer that no template trims, splits or rewrites."""

MOST_SHAPES = 10_000
"""Sequences of roles of which it is remembered whether the template keeps all of them."""
_REASONING = re.compile(r"(?<![A-Za-z_])(reasoning_content|reasoning|thinking)(?![A-Za-z_])")

Span = tuple[int, int]
"""First character and the one after the last."""


@dataclass(frozen=True)
class Ending:
    """What a template writes after the content of an answer."""

    token: str
    """The end-of-turn token, which the model must learn to write."""
    rest: str
    """What follows it where the answer is the last message, such as a line break."""


class ChatTemplate:
    """A compiled chat template with the special tokens of one tokenizer."""

    def __init__(
        self,
        text: str,
        *,
        special_tokens: Mapping[str, str],
        control_tokens: Iterable[str],
        special: Iterable[str],
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """`control_tokens` are what the tokenizer keeps whole; those of them in `special` are never content.

        `arguments` are given to the template beside the messages, such as `enable_thinking`.
        """
        self.text = text
        self.arguments = dict(arguments or {})
        self._special_tokens = dict(special_tokens)
        self.limits = TemplateLimits()
        self._dropped: dict[tuple[Any, ...], int | None] = {}
        self._special = frozenset(special)
        ordered = sorted(control_tokens, key=len, reverse=True)
        self._control = re.compile("|".join(map(re.escape, ordered)) or r"(?!)")
        self.has_markers = re.search(r"\{%[-+]?\s*generation\s*[-+]?%\}", text) is not None

    @classmethod
    def of(
        cls, tokenizer: "PreTrainedTokenizerBase", text: str, arguments: Mapping[str, Any] | None = None
    ) -> "ChatTemplate":
        added = tokenizer.added_tokens_decoder.values()
        special = set(tokenizer.all_special_tokens) | {token.content for token in added if token.special}
        control = special | {token.content for token in added if not token.content.isspace()}
        return cls(
            text,
            special_tokens=tokenizer.special_tokens_map,
            control_tokens=control,
            special=special,
            arguments=arguments,
        )

    @property
    def key(self) -> str:
        """All of the template that what it renders depends on."""
        return self.text + (json.dumps(self.arguments, sort_keys=True) if self.arguments else "")

    @cached_property
    def knows_reasoning(self) -> bool:
        """Whether the template has a place for the reasoning before an answer."""
        return _REASONING.search(self.text) is not None

    def check(self) -> None:
        """Render a plain question and answer.

        Raises:
            DataError: the template fails on it, leaves the answer out, or does not end it; or it does not read one of
                its arguments.
        """
        # Finding how the answer ends renders it; the property keeps what it found.
        _ = self.ending
        check_arguments(self.text, self.arguments, special_tokens=self._special_tokens)

    def render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        generation: bool = False,
        place: str | None = None,
    ) -> str:
        """The text of a conversation; with `generation` it ends where the model is to go on.

        Raises:
            DataError: the template fails on it.
        """
        return self._render(messages, tools=tools, generation=generation, mark=False, place=place)[0]

    def render_marked(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] = (), place: str | None = None
    ) -> tuple[str, list[Span]]:
        """The text, and the spans that lie between the template's own `{% generation %}` markers.

        Raises:
            DataError: the template fails on it.
        """
        return self._render(messages, tools=tools, generation=False, mark=self.has_markers, place=place)

    def render_prompt(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] = (), place: str | None = None
    ) -> str:
        """The text up to where an answer to `messages` begins.

        Raises:
            DataError: the template fails on it.
        """
        return self.render(messages, tools=tools, generation=True, place=place) + self._header

    @cached_property
    def ending(self) -> Ending:
        """How the template ends an answer that is the last message.

        Raises:
            DataError: it ends it with nothing that the tokenizer knows as one token.
        """
        tail = self._tail(())
        match = self._control.match(tail.lstrip())
        if match is None:
            written = f"writes {tail!r} after an answer" if tail.strip() else "writes nothing after an answer"
            raise DataError(
                f"the chat template {written}, and the tokenizer has no one token for that: the model would never "
                "learn to stop. Name a template whose end-of-turn token the tokenizer knows in data.chat_template "
                f"({', '.join(shipped_templates())}, or a Jinja file)",
                finding="no_end",
            )
        return Ending(match[0], tail[tail.index(match[0]) + len(match[0]) :])

    @cached_property
    def inner_endings(self) -> tuple[str, ...]:
        """End-of-turn tokens of answers anywhere in a conversation; some templates end an earlier one differently."""
        later: tuple[Message, ...] = ({"role": "user", "content": "x"}, {"role": "assistant", "content": "x"})
        match = self._control.match(self._tail(later).lstrip())
        return tuple(dict.fromkeys([self.ending.token, *([match[0]] if match else [])]))

    def closing_token(self, text: str) -> str | None:
        """The special token with which `text` ends, trailing white space apart."""
        text = text.rstrip()
        return next((token for token in self._special if text.endswith(token)), None)

    def dropped_message(self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] = ()) -> int | None:
        """Place of the first message that the template leaves out of conversations of this shape; None where it keeps
        all that have content.

        What a short content says may stand in the text by chance, so the messages are rendered with content that does
        not, once for each sequence of roles.
        """
        shape = (bool(tools), *[(one["role"], bool(one.get("content")), "tool_calls" in one) for one in messages])
        if shape not in self._dropped:
            if len(self._dropped) >= MOST_SHAPES:
                self._dropped.clear()
            self._dropped[shape] = self._first_dropped(messages, tools)
        return self._dropped[shape]

    def _first_dropped(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> int | None:
        probes = [
            {**message, "content": f"{PROBE}{place}e"} if message.get("content") else message
            for place, message in enumerate(messages)
        ]
        try:
            text = self.render(probes, tools=tools)
        except DataError:
            return None  # it looks into the content, and did not fail on the row's own
        found = (place for place, one in enumerate(probes) if one.get("content") and one["content"] not in text)
        return next(found, None)

    @cached_property
    def _parts(self) -> bool:
        """Whether the template reads content as a list of parts, as those of vision models do, and not as a text."""
        failure: Exception | None = None
        for parts in (False, True):
            try:
                with self.limits:
                    text = self._call(_probe(()), tools=(), generation=False, mark=False, parts=parts)[0]
            except Exception as error:  # a template is a program of someone else's, and may fail in any way
                # Most read a text: what that fails at is told, not that a list is none.
                failure = failure or error
                if isinstance(error, TooLong | MemoryError):
                    break
                continue
            if PROBE in text:
                return parts
        if failure is not None:
            raise DataError(
                f"the chat template fails on a plain question and answer: {told(failure)}. {NAME_ANOTHER}"
            ) from failure
        raise DataError(f"the chat template leaves the answer out of a plain question and answer. {NAME_ANOTHER}")

    @cached_property
    def _header(self) -> str:
        """What stands between prompt and answer in a template that cannot be asked to open an answer."""
        if "add_generation_prompt" in self.text:
            return ""
        whole = self.render(_probe(()))
        prompt = self.render(_probe(())[:1])
        if not whole.startswith(prompt):
            raise DataError(
                "the chat template has no add_generation_prompt and does not render piece by piece, so where an answer "
                "begins cannot be known. Name another in data.chat_template"
            )
        return whole[len(prompt) : whole.index(PROBE)]

    def _tail(self, later: Sequence[Message]) -> str:
        text = self.render(_probe(later))
        return text[text.rindex(PROBE) + len(PROBE) :]

    def _render(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        generation: bool,
        mark: bool,
        place: str | None,
    ) -> tuple[str, list[Span]]:
        try:
            parts = self._parts
            with self.limits:
                return self._call(messages, tools=tools, generation=generation, mark=mark, parts=parts)
        except DataError:
            raise
        except Exception as error:  # a template is a program of someone else's, and may fail in any way
            raise DataError(
                f"the chat template fails on this row: {told(error)}. Change the row, or name another template in "
                "data.chat_template",
                place=place,
            ) from error

    def _call(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        generation: bool,
        mark: bool,
        parts: bool,
    ) -> tuple[str, list[Span]]:
        from transformers.utils.chat_template_utils import render_jinja_template

        texts, marks = render_jinja_template(
            conversations=[[_for_template(message, parts=parts) for message in messages]],
            tools=[dict(tool) for tool in tools] or None,
            chat_template=self.text,
            return_assistant_tokens_mask=mark,
            add_generation_prompt=generation,
            **self._special_tokens,
            **self.arguments,
        )
        return texts[0], marks[0] if mark else []


def _probe(later: Sequence[Message]) -> list[Message]:
    return [{"role": "user", "content": "x"}, {"role": "assistant", "content": PROBE}, *later]


def _for_template(message: Message, *, parts: bool) -> Message:
    # As transformers does: a key without a value is left out, because templates print None.
    clean = {key: value for key, value in message.items() if value is not None and key not in ("train", "weight")}
    if parts and isinstance(clean.get("content"), str):
        clean["content"] = [{"type": "text", "text": clean["content"]}]
    return clean
