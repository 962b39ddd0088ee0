"""`template_failure`, `no_end`, `truncated`: what a row becomes under the model's template and tokenizer."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from ftk.core.errors import DataError
from ftk.core.types import Conversation
from ftk.data.check.finding import Remark, Severity
from ftk.data.check.row import CheckedRow, Rendering
from ftk.data.render import Rendered as RenderedTokens
from ftk.data.render import Renderer
from ftk.data.train_on import TrainOn
from ftk.data.truncate import Truncation, loses_end

TEMPLATE_FAILURE = "template_failure"
FAULTS = {
    TEMPLATE_FAILURE: Remark(TEMPLATE_FAILURE, "error", "the chat template does not render the row as it should"),
    "no_end": Remark("no_end", "error", "the end of turn of an answer would not be learned"),
    "empty": Remark("empty", "error", "the row has no answer to learn from"),
}
CUT_END = Remark("no_end", "warning", "the cut takes the end of an answer, which then does not teach to stop")


@dataclass(frozen=True)
class Rendered:
    """Tells what `RowRenderer` found of a row."""

    max_length: int
    truncation: Truncation

    def remarks(self, row: CheckedRow) -> Iterator[tuple[Remark, str]]:
        if row.rendering is None:
            return
        kind, message = row.rendering.fault or ("", "")
        if kind in FAULTS:  # a token that a text spells out is told of by what looks for all of them
            yield FAULTS[kind], message
        if row.rendering.num_tokens > self.max_length:
            yield self._truncated(), f"{row.rendering.num_tokens:,} tokens"
        if row.rendering.loses_end:
            yield CUT_END, ""

    def _truncated(self) -> Remark:
        did = {"drop": "it is dropped", "error": "training stops at it"}
        severity: Severity = "error" if self.truncation == "error" else "warning"
        what = did.get(self.truncation, f"it is cut at the {self.truncation}")
        return Remark("truncated", severity, f"the row is longer than max_length {self.max_length:,} tokens: {what}")


class RowRenderer:
    """Renders rows as training would, and keeps what became of each instead of stopping at the first fault."""

    def __init__(self, renderer: Renderer, *, max_length: int, truncation: Truncation, train_on: TrainOn) -> None:
        self._renderer = renderer
        self._max_length, self._truncation, self._train_on = max_length, truncation, train_on
        self._general_fault = general_fault(renderer)

    def render(self, rows: Sequence[CheckedRow]) -> list[CheckedRow]:
        """The rows with their `rendering`; documents of plain text, and rows that lack a side, go without."""
        many = [row for row in rows if len(row.conversations) == 1 and _is_whole(row)]
        found = iter(self._together(many))
        rendered = []
        for row in rows:
            if not row.conversations or not _is_whole(row):
                rendered.append(row)
            elif len(row.conversations) == 1:
                rendered.append(row._replace(rendering=next(found)))
            else:
                rendered.append(row._replace(rendering=_worst([self._alone(one) for one in _conversations(row)])))
        return rendered

    def _together(self, rows: Sequence[CheckedRow]) -> list[Rendering]:
        conversations = [_conversations(row)[0] for row in rows]
        if self._general_fault is None:
            with suppress(DataError):  # one of them is at fault: each is then rendered by itself
                return self._rendered(conversations)
        return [self._alone(one) for one in conversations]

    def _alone(self, conversation: Conversation) -> Rendering:
        if self._general_fault is not None:
            return Rendering(0, self._general_fault, loses_end=False)
        try:
            return self._rendered([conversation])[0]
        except DataError as error:
            return Rendering(0, (error.finding or TEMPLATE_FAILURE, error.message), loses_end=False)

    def _rendered(self, conversations: Sequence[Conversation]) -> list[Rendering]:
        if not conversations:
            return []
        rows = self._renderer.render_many(conversations, train_on=self._train_on)
        return [Rendering(row.length, None, self._loses_end(row)) for row in rows]

    def _loses_end(self, row: RenderedTokens) -> bool:
        too_long = row.length > self._max_length
        return self._truncation == "right" and too_long and loses_end(row, max_length=self._max_length)


def general_fault(renderer: Renderer) -> tuple[str, str] | None:
    """Kind and message of what is wrong with the template whatever the row."""
    try:
        renderer.template.check()
    except DataError as error:
        return error.finding or TEMPLATE_FAILURE, error.message
    return None


def _is_whole(row: CheckedRow) -> bool:
    return all(text and not text.isspace() for text in (row.prompt, row.answer))


def _conversations(row: CheckedRow) -> list[Conversation]:
    return [
        Conversation(messages, row.number, row.source, {}, tuple(dict(tool) for tool in row.tools))
        for messages in row.conversations
    ]


def _worst(renderings: Sequence[Rendering]) -> Rendering:
    """Of a preference, the longest completion and the first fault."""
    fault = next((one.fault for one in renderings if one.fault is not None), None)
    longest = max(one.num_tokens for one in renderings)
    return Rendering(longest, fault, loses_end=any(one.loses_end for one in renderings))
