"""From the sources of a recipe to conversations."""

from collections.abc import Sequence
from typing import TypeAlias

from ftk.core.types import Conversation
from ftk.data.conversations import ConversationReader
from ftk.data.retrieval import DEFAULT_RETRIEVAL, Retrieval
from ftk.data.rows import Rows
from ftk.data.settings import Source
from ftk.data.source import reader_of

Conversations: TypeAlias = Rows[Conversation]


def read_conversations(
    sources: Sequence[Source],
    *,
    role: str = "data",
    retrieval: Retrieval = DEFAULT_RETRIEVAL,
    group: str | None = None,
    to_be_answered: bool = False,
) -> Conversations:
    """The rows of `sources`, each source once and in its own order; weights are for `TrainBatches`.

    `role` says in messages what they are for, such as `data.train`; `retrieval` how retrieved documents are shown.
    Rows with one value in the column `group` show theirs in one order. Rows `to_be_answered` need no answer.

    Raises:
        DataError: now, a source is missing; when rows are first looked at, one does not read, with its file and line.
    """
    readers = [
        ConversationReader(reader_of(source), retrieval, group=group, to_be_answered=to_be_answered)
        for source in sources
    ]
    return Rows(readers, role=role)
