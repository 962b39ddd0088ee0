"""From a conversation to tokens and one loss weight a token.

Shapes: L positions.
"""

import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ftk.core.errors import DataError
from ftk.core.types import Conversation
from ftk.data.checks import (
    adds_bos,
    check_bos,
    check_characters,
    check_end_of_turn,
    check_learned,
    check_tells_places,
    place_of,
)
from ftk.data.template import ChatTemplate, Span
from ftk.data.template_arguments import kept_arguments
from ftk.data.template_text import template_text
from ftk.data.train_on import TrainOn, answers_of, is_silent, last_answer, learned_answers, nothing_learned
from ftk.data.turn_marks import answer_weight
from ftk.data.turns import Turn, render_turns

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase


class Rendered(NamedTuple):
    """One row as the model sees it."""

    token_ids_L: NDArray[np.int32]
    weights_L: NDArray[np.float32]
    """On learned answers with their end-of-turn token 1 or what the row says, `prompt_loss_weight` elsewhere, 0 on the
    first token and on answers that the row says not to learn."""
    answers_L: NDArray[np.bool_]
    """Tokens of learned answers, end-of-turn tokens included."""
    branches_L: NDArray[np.int8] | None = None
    """Where the row is a prompt with several completions: see `Example`."""

    @property
    def length(self) -> int:
        """Tokens of the longest text in the row: the row itself, or its prompt with the longest completion."""
        if self.branches_L is None:
            return len(self.token_ids_L)
        counts = np.bincount(self.branches_L[self.branches_L >= 0])
        return int(counts[0] + counts[1:].max())


class Completed(NamedTuple):
    """A conversation of which the end is learned."""

    rendered: Rendered
    """Weight 1 on the completion's answers, 0 elsewhere."""
    num_prompt: int
    """Tokens that lie wholly before the completion."""


class Renderer:
    """Renders conversations by one chat template and one tokenizer."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        chat_template: str | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """`chat_template` is the text of a Jinja template, by default the model's own; `arguments` are given to it.

        Raises:
            DataError: the model has no template, or its tokenizer cannot tell where tokens lie in a text.
        """
        check_tells_places(tokenizer)
        self.tokenizer = tokenizer
        text = template_text(None, tokenizer) if chat_template is None else chat_template
        self.template = ChatTemplate.of(tokenizer, text, arguments)

    @cached_property
    def end_token_ids(self) -> tuple[int, ...]:
        """The end-of-turn token that is learned, at which generation stops.

        Raises:
            DataError: the template ends answers with nothing that the tokenizer knows as one token.
        """
        return (self._id_of(self.template.ending.token),)

    @cached_property
    def bos_token_id(self) -> int | None:
        """The token that begins each row, whether the template or the tokenizer adds it."""
        token_id: int | None = self.tokenizer.bos_token_id
        return token_id

    def render(self, conversation: Conversation, **how: Any) -> Rendered:
        """One conversation; `how` is as of `render_many`."""
        return self.render_many([conversation], **how)[0]

    def render_many(
        self,
        conversations: Sequence[Conversation],
        *,
        prompt_loss_weight: float = 0.1,
        train_on: TrainOn = "all",
        reasoning_weight: float = 1.0,
    ) -> list[Rendered]:
        """Tokens, loss weights and answer marks of each conversation.

        The weight of an answer is the one that its message has, 1 by default; the reasoning in it weighs
        `reasoning_weight` times that.

        Each text is tokenized whole, once, and characters are mapped to tokens afterwards: a token that reaches into an
        answer belongs to it. What is learned is proven: see `render_turns`, and the checks.

        Raises:
            DataError: a row teaches nothing, no end of turn, has two BOS, or renders differently in pieces.
        """
        wanted = [learned_answers(one, train_on) for one in conversations]
        # An answer that is shown and not learned has weight 0 even where the prompt has some.
        silent = [[turn for turn in answers_of(one) if is_silent(one.messages[turn])] for one in conversations]
        return [
            self._weigh(
                encoding,
                found,
                conversation,
                prompt_loss_weight=prompt_loss_weight,
                reasoning_weight=reasoning_weight,
            )
            for conversation, encoding, found in self._encoded(conversations, wanted, silent)
        ]

    def render_completions(self, conversations: Sequence[Conversation], starts: Sequence[int]) -> list[Completed]:
        """Each conversation whole, of which the answers from message `starts[n]` on are learned; see `render_many`.

        Raises:
            DataError: as `render_many`.
        """
        wanted = [
            [turn for turn in answers_of(one) if turn >= start]
            for one, start in zip(conversations, starts, strict=True)
        ]
        completed = []
        for conversation, encoding, found in self._encoded(conversations, wanted, wanted):
            rendered = self._weigh(encoding, found, conversation, prompt_loss_weight=0.0)
            first, _ = _tokens_of(encoding.offsets, (found[0].start, found[0].start))
            completed.append(Completed(rendered, first + len(rendered.token_ids_L) - len(encoding.ids)))
        return completed

    def render_prompt(self, conversation: Conversation, *, shots: Sequence[Conversation] = ()) -> list[int]:
        """Tokens up to where the last answer begins, as for generation.

        Each of `shots` goes before it as question and answer, without its own system message.
        """
        messages = list(conversation.messages[: last_answer(conversation)])
        if shots:
            system = [message for message in messages[:1] if message["role"] == "system"]
            shown = [message for shot in shots for message in shot.messages if message["role"] != "system"]
            messages = [*system, *shown, *messages[len(system) :]]
        place = place_of(conversation)
        text = self.template.render_prompt(messages, tools=conversation.tools, place=place)
        check_characters(text, place=place)
        token_ids = self._with_bos(self._encode([text])[0].ids)
        check_bos(np.asarray(token_ids), self.bos_token_id, self._ends_of_any_turn, place=place)
        return token_ids

    @staticmethod
    def reference(conversation: Conversation) -> str:
        """The last answer as text; the calls of tools, as JSON, where it has no text."""
        message = conversation.messages[last_answer(conversation)]
        if message.get("content"):
            return str(message["content"])
        return json.dumps(message["tool_calls"], ensure_ascii=False)

    def _encoded(
        self, conversations: Sequence[Conversation], wanted: Sequence[Sequence[int]], silent: Sequence[Sequence[int]]
    ) -> "Iterator[tuple[Conversation, Encoding, list[Turn]]]":
        """Each conversation with its tokens, and its answers at the places `wanted` and `silent`."""
        texts, turns = [], []
        with self.template.limits:
            for conversation, learned, more in zip(conversations, wanted, silent, strict=True):
                text, found = self._rendered(conversation, learned, more)
                texts.append(text)
                turns.append(found)
        return zip(conversations, self._encode(texts), turns, strict=True)

    def _rendered(
        self, conversation: Conversation, learned: Sequence[int], silent: Sequence[int]
    ) -> tuple[str, list[Turn]]:
        place = place_of(conversation)
        if all(is_silent(conversation.messages[turn]) for turn in learned):
            raise DataError(nothing_learned(conversation), place=place, finding="empty")
        text, turns = render_turns(
            self.template,
            conversation.messages,
            tools=conversation.tools,
            turns=sorted({*learned, *silent}),
            place=place,
        )
        check_characters(text, place=place)
        return text, turns

    def _weigh(
        self,
        encoding: "Encoding",
        turns: Sequence[Turn],
        conversation: Conversation,
        *,
        prompt_loss_weight: float,
        reasoning_weight: float = 1.0,
    ) -> Rendered:
        place = place_of(conversation)
        token_ids_L = np.asarray(self._with_bos(encoding.ids), np.int32)
        shift = len(token_ids_L) - len(encoding.ids)
        weights_L = np.full(len(token_ids_L), prompt_loss_weight, np.float32)
        answers_L = np.zeros(len(token_ids_L), np.bool_)
        offsets = encoding.offsets
        for turn in turns:
            weight = answer_weight(conversation.messages[turn.message])
            for span in turn.spans:
                first, last = _tokens_of(offsets, span)
                weights_L[first + shift : last + shift] = weight
                answers_L[first + shift : last + shift] = weight > 0
            if turn.reasoning is not None and reasoning_weight != 1:
                first_thought, last_thought = _tokens_of(offsets, turn.reasoning)
                thought = slice(first_thought + shift, last_thought + shift)
                weights_L[thought] = np.where(answers_L[thought], weight * reasoning_weight, weights_L[thought])
                answers_L[thought] &= reasoning_weight > 0
            check_end_of_turn(token_ids_L[last + shift - 1], self._id_of(turn.end_token), turn.end_token, place=place)
        weights_L[:1], answers_L[:1] = 0.0, False  # the first token has no context to be predicted from
        check_learned(weights_L, answers_L, place=place)
        check_bos(token_ids_L, self.bos_token_id, self._ends_of_any_turn, place=place)
        return Rendered(token_ids_L, weights_L, answers_L)

    def _encode(self, texts: Sequence[str]) -> "Sequence[Encoding]":
        encoded: Sequence[Encoding] = self.tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        ).encodings
        return encoded

    def _with_bos(self, token_ids: list[int]) -> list[int]:
        if self._tokenizer_adds_bos and token_ids[:1] != [self.bos_token_id]:
            return [self.bos_token_id or 0, *token_ids]
        return token_ids

    @cached_property
    def _tokenizer_adds_bos(self) -> bool:
        return adds_bos(self.tokenizer)

    @cached_property
    def _ends_of_any_turn(self) -> frozenset[int]:
        return frozenset(self._id_of(token) for token in self.template.inner_endings)

    def _id_of(self, token: str) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(token))


def _tokens_of(offsets: Sequence[tuple[int, int]], span: Span) -> tuple[int, int]:
    """First token that reaches into the characters of `span`, and the one after the last."""
    first = bisect_right(offsets, span[0], key=_end_of)
    last = bisect_left(offsets, span[1], lo=first, key=_start_of)
    return first, last


def _start_of(offset: tuple[int, int]) -> int:
    return offset[0]


def _end_of(offset: tuple[int, int]) -> int:
    return offset[1]


def renderer_for(
    tokenizer: "PreTrainedTokenizerBase", *, chat_template: str | None, arguments: Mapping[str, Any] | None = None
) -> Renderer:
    """The renderer that a recipe asks for.

    Args:
        tokenizer: of the model; with its own template it brings the arguments that this was trained with.
        chat_template: a shipped name, a Jinja file, or None for the model's own.
        arguments: given to the template, before those that the model brings.

    Raises:
        DataError: no such template, the model has none, it fails on a plain question and answer, or it does not read
            an argument.
    """
    kept = kept_arguments(tokenizer) if chat_template is None else {}
    renderer = Renderer(tokenizer, template_text(chat_template, tokenizer), {**kept, **(arguments or {})})
    try:
        renderer.template.check()
    except DataError as error:
        raise DataError(error.message, place=chat_template or tokenizer.name_or_path or None) from error
    return renderer
