"""The types by which independent parts meet.

Shapes: B rows, L positions, N examples, T tokens, E experts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch takes seconds to load, and processes that look at rows have no use for it
    from torch import Tensor, device

REFERENCE_LOGPS = "reference_logps"
"""The column of an example that the model gave as its training began, and not the data."""

NUM_BYTES = "num_bytes"
"""The column of an example of plain text with the bytes (UTF-8) that its learned tokens stand for."""

TEMPLATE_ARGUMENTS = "chat_template_arguments"
"""The key of tokenizer_config.json under which the arguments lie that the rows were rendered with."""

Message = dict[str, Any]
"""One turn as OpenAI writes it: `role`, `content`, and where there are any `tool_calls`, `name`, `reasoning_content`,
`train` (whether an answer is learned, where the row says it), `weight` (its loss weight, where that is a fraction)."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """One row of a data set, after its format was understood."""

    messages: tuple[Message, ...]
    row: int
    """Number of the row in its source, from 1."""
    source: str
    """The file or data set it came from, as errors name it."""
    columns: Mapping[str, Any]
    """All columns of the row as read, for metrics that look at more than the answer."""
    tools: tuple[dict[str, Any], ...] = ()
    without_context: tuple[Message, ...] | None = None
    """The same without its retrieved documents; None where it is no question of some."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One row of preference data, after its format was understood."""

    prompt: tuple[Message, ...]
    """What the completions answer to; ends before the first turn in which they differ."""
    completions: tuple[tuple[Message, ...], ...]
    """Chosen and rejected, in this order; or one completion by itself, of which `desirable` tells the worth."""
    desirable: bool | None
    """Whether a completion by itself is wanted; None for a pair."""
    row: int
    """Number of the row in its source, from 1."""
    source: str
    """The file or data set it came from, as errors name it."""
    columns: Mapping[str, Any]
    """All columns of the row as read."""
    tools: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class TextBlock:
    """A document of plain text, or a stretch of one that is too long to be held at once."""

    text: str
    row: int
    """Line of its file where the document begins, or its row, from 1."""
    source: str
    """The file or data set it came from, as errors name it."""
    begins: bool = True
    """Whether the document begins here."""
    ends: bool = True
    """Whether the document ends here."""


@dataclass(frozen=True, slots=True)
class Example:
    """One row as the model sees it."""

    token_ids_L: NDArray[np.int32]
    weights_L: NDArray[np.float32]
    """Loss weight of each token as a target; the first token has no context, hence weight 0."""
    answers_L: NDArray[np.bool_]
    """Which tokens belong to a learned answer, its end of turn included; what accuracy is counted on."""
    index: int
    """Place among the examples, from 0; `Examples.place` turns it into a file and row for a message."""
    branches_L: NDArray[np.int8] | None = None
    """0 on the trunk (the prompt), k on the k-th completion of it, -1 on one that statistics alone look at.

    Completions follow each other, each continues the trunk, and none sees another. None where the row is one text."""
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Known figures of the example, such as its `reference_logps` by completion."""


@dataclass(frozen=True, slots=True)
class Examples(Sequence[Example]):
    """All rendered rows in flat arrays, so that a hundred thousand load from a cache at once.

    `offsets` has N + 1 entries: example n lies in `[offsets[n], offsets[n + 1])`.
    """

    token_ids: NDArray[np.int32]
    weights: NDArray[np.float32]
    answers: NDArray[np.bool_]
    offsets: NDArray[np.int64]
    rows_N: NDArray[np.int64]
    sources_N: NDArray[np.int32]
    """Index into `source_names`."""
    source_names: tuple[str, ...]
    branches: NDArray[np.int8] | None = None
    """Branch of each token, as in `Example`; None where every row is one text."""
    columns: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)
    """Figures known of each example, by name, of shape [N, ...]."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        here = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return Example(
            self.token_ids[here],
            self.weights[here],
            self.answers[here],
            index,
            self.branches[here] if self.branches is not None else None,
            {name: column[index] for name, column in self.columns.items()},
        )

    @property
    def lengths_N(self) -> NDArray[np.int64]:
        return np.diff(self.offsets)

    def place(self, index: int) -> str:
        """Where example `index` came from, as `file:row`."""
        return f"{self.source_names[int(self.sources_N[index])]}:{int(self.rows_N[index])}"


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one forward pass, padded at the right or packed."""

    input_ids_BL: "Tensor"
    position_ids_BL: "Tensor"
    """Positions count from 0 within each document."""
    document_ids_BL: "Tensor"
    """0 for padding; documents of a row count from 1. Tokens of different documents never see each other."""
    weights_BL: "Tensor"
    """float32 loss weight of each token as a target; 0 on padding and on each document's first token."""
    answers_BL: "Tensor"
    """bool: tokens of learned answers, on which accuracy is counted."""
    packed: bool
    """Whether some row holds more than one document."""
    num_tokens: int
    """Real tokens, padding apart."""
    num_examples: int
    indices: tuple[int, ...]
    """Which examples lie in the batch, row by row; empty for a row that only keeps processes in step."""
    branches_BL: "Tensor | None" = None
    """0 on the trunk of a document, k on its k-th completion; None where every document is one text.

    So it is, too, where each prompt has a single completion: what `answers_BL` marks is its completion then.
    A token sees the trunk and its own branch alone, and positions of every branch go on from the trunk's end."""
    columns: "Mapping[str, Tensor]" = field(default_factory=dict)
    """Figures known of each example, by name, float32 [N, ...]; a row that only keeps processes in step has zeros."""
    aside: "Batch | None" = None
    """What statistics alone look at: the same prompts and columns with the completions of branch -1, as branch 1.

    A row that only keeps processes in step has one where the others have one."""

    def to(self, target: "device") -> "Batch":
        branches_BL = self.branches_BL
        return replace(
            self,
            branches_BL=branches_BL.to(target, non_blocking=True) if branches_BL is not None else None,
            columns={name: column.to(target, non_blocking=True) for name, column in self.columns.items()},
            aside=self.aside.to(target) if self.aside is not None else None,
            input_ids_BL=self.input_ids_BL.to(target, non_blocking=True),
            position_ids_BL=self.position_ids_BL.to(target, non_blocking=True),
            document_ids_BL=self.document_ids_BL.to(target, non_blocking=True),
            weights_BL=self.weights_BL.to(target, non_blocking=True),
            answers_BL=self.answers_BL.to(target, non_blocking=True),
        )


class RouterLoad(NamedTuple):
    """What the routers of a mixture of experts did, summed over the real tokens of a batch."""

    counts_E: "Tensor"
    """Times each expert was chosen, summed over layers; no gradient."""
    probabilities_E: "Tensor"
    """Sum of router probabilities, over layers; carries the gradient."""
    num_tokens: "Tensor"
    """Tokens times layers, the divisor of both."""


class TokenScores(NamedTuple):
    """What the model says of a batch. A named tuple, so that wrappers for sharded weights find its tensors."""

    logps_BL: "Tensor"
    """float32, nats: log p(token at l | tokens before it in its document). 0 where the weight is 0."""
    correct_BL: "Tensor"
    """bool: the token at l was the most probable one. False where the weight is 0."""
    router: RouterLoad | None = None


class Terms(NamedTuple):
    """What an objective adds up over a batch."""

    sums: "dict[str, Tensor]"
    """Unnormalised sums by term name; the step divides each by its own weight over the whole optimizer step."""
    observed: "dict[str, Tensor]"
    """Sums to log, without gradient, such as `num_correct` beside `num_answer_tokens`."""


class Objective(Protocol):
    """What is learned. Sums and weights, never means."""

    def weights(self, batch: Batch) -> dict[str, float]:
        """The weight of each term in this batch, known before the forward pass."""

    def statistics_batches(self, batch: Batch) -> Sequence[Batch]:
        """What `statistics` must see of a batch, scored without gradients: itself, what lies aside, or nothing."""

    def statistics(self, scores: TokenScores, batch: Batch) -> "dict[str, Tensor]":
        """Sums of this batch that the whole step adds up before any `terms`; empty where none are needed."""

    def terms(self, scores: TokenScores, batch: Batch, statistics: "Mapping[str, Tensor]") -> Terms:
        """The unnormalised sums of this batch."""

    def figures(self, observed: Mapping[str, float]) -> dict[str, float]:
        """What is logged of the observed sums of a step or an evaluation, by name; without what cannot be told."""


class BatchSource(Protocol):
    """Where the loop's batches come from: one list of micro-batches an optimizer step, for this process.

    Every process gets lists of equal length.
    """

    @property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps in one pass over the data; None where that is not known beforehand."""

    def __iter__(self) -> Iterator[list[Batch]]:
        """Steps without end, epoch after epoch, from where `load_state_dict` has put it."""

    def state_dict(self) -> dict[str, Any]:
        """The place in the data, as JSON values: the next step's, not one that was drawn ahead."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
