"""Optimizer steps of batches for training, and batches for evaluation.

Shapes: N examples.
"""

import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ftk.core.errors import DataError
from ftk.core.types import REFERENCE_LOGPS, Batch, Example, Examples
from ftk.data.collate import collate, idle_batch
from ftk.data.deal import deal
from ftk.data.order import epoch_order
from ftk.data.pack import pack

Steps = list[NDArray[np.int64]]


class TrainBatches:
    """Optimizer steps of examples without end, epoch after epoch (a `BatchSource`).

    Which examples make a step depends on the seed, the epoch and the batch size, never on the number of processes or
    the micro-batch: those only deal the step's examples out, by length, so that there is little padding. The last step
    of an epoch is smaller where the rest is; no example is left out, and no step spans two epochs.
    """

    def __init__(
        self,
        examples: Examples,
        *,
        batch_size: int,
        batch_tokens: int | None = None,
        micro_batch_size: int = 1,
        micro_batch_tokens: int | None = None,
        packing: bool = False,
        max_length: int,
        pad_token_id: int,
        seed: int,
        process_index: int = 0,
        num_processes: int = 1,
        source_weights: Sequence[float] | None = None,
        source_origins: Sequence[int] | None = None,
    ) -> None:
        """
        Args:
            batch_size: Examples an optimizer step, over all processes.
            batch_tokens: Real tokens a step instead: examples are drawn until the next would pass it.
            micro_batch_size: Rows a forward pass on each process; with packing a row holds several examples.
            micro_batch_tokens: Tokens a forward pass instead, padding included; see `deal`.
            max_length: Tokens a packed row holds.
            source_weights: Weight of each of `examples.source_names`, as `PreparationReport` has it.
            source_origins: For each of those names the place of its weight, where several files share one.
        """
        self._examples = examples
        self._batch_size = batch_size
        self._batch_tokens = batch_tokens
        self._micro_batch_size = micro_batch_size
        self.micro_batch_tokens = micro_batch_tokens
        """May be set at any time: it changes memory and speed, never the result."""
        self._capacity = max(max_length, int(examples.lengths_N.max())) if packing else None
        self._pad_token_id = pad_token_id
        self._seed = seed
        self._process_index = process_index
        self._num_processes = num_processes
        self._source_weights = source_weights
        origins = np.arange(len(examples.source_names)) if source_origins is None else np.asarray(source_origins)
        self._sources_N = origins.astype(np.int32)[examples.sources_N]
        self._lengths_N = examples.lengths_N
        self._epoch = 0
        self._step = 0
        self._cached_steps: tuple[int, Steps] = (-1, [])

    @cached_property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in the first pass over the data; with `batch_tokens` later passes may differ a little."""
        return len(self._steps_of(0))

    @property
    def epoch(self) -> float:
        """Passes over the data so far, up to the next step."""
        return self._epoch + self._step / len(self._steps_of(self._epoch))

    def __iter__(self) -> Iterator[list[Batch]]:
        while True:
            steps = self._steps_of(self._epoch)
            while self._step < len(steps):
                members = steps[self._step]
                # The place moves on before the step is given out, so that a state saved after the step names the next.
                self._step += 1
                if self._step == len(steps):
                    self._epoch, self._step = self._epoch + 1, 0
                    yield self._micro_batches(members)
                    break
                yield self._micro_batches(members)

    def state_dict(self) -> dict[str, Any]:
        """The next step's place, and what the order depends on."""
        return {"epoch": self._epoch, "step": self._step, **self._order_depends_on()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved place; micro-batch, packing and processes may be others than they were.

        Raises:
            DataError: the order is another one: other data, seed or batch size.
        """
        changed = [
            f"{name} was {state.get(name)}, now {value}"
            for name, value in self._order_depends_on().items()
            if state.get(name) != value
        ]
        if changed:
            raise DataError(f"the place in the data cannot be found again: {'; '.join(changed)}. Start afresh")
        self._epoch, self._step = int(state["epoch"]), int(state["step"])

    @cached_property
    def rows_per_step(self) -> int:
        """Rows that one process has in the largest step of the first epoch; more in a micro-batch are of no use."""
        if self._capacity is None:
            rows = max(len(step) for step in self._steps_of(0))
        else:
            rows = len(self._rows(max(self._steps_of(0), key=lambda step: int(self._lengths_N[step].sum()))))
        return -(-rows // self._num_processes)

    @property
    def longest_row(self) -> int:
        """Tokens of the longest row that a forward pass may hold."""
        return self._capacity or int(self._lengths_N.max())

    def worst_batch(self, num_rows: int | None = None) -> Batch:
        """The micro-batch of at most `num_rows` rows, by default as it is set, that needs most memory.

        Where completions share a prompt and the model runs each in a row of its own, the longest text counts, too.
        """
        if num_rows is None:
            tokens = self.micro_batch_tokens
            num_rows = self._micro_batch_size if tokens is None else max(1, tokens // self.longest_row)
        if self._capacity is None:
            longest = np.argsort(-self._lengths_N, kind="stable")
            rows = [[int(place)] for place in longest[:num_rows]]
            text = int(np.argmax(self._text_lengths_N))
            if len(rows) > 1 and [text] not in rows:
                rows[-1] = [text]
        else:
            packed = pack(self._lengths_N, capacity=self._capacity)
            fullest = sorted(packed, key=lambda row: -int(self._lengths_N[row].sum()))
            rows = [row.tolist() for row in fullest[:num_rows]]
        return self._collate(rows[: self.rows_per_step])

    @cached_property
    def _contents(self) -> str:
        """Tells rows or a template that were edited meanwhile; a checksum takes 0.1 s for 50 million tokens."""
        examples = self._examples
        parts: list[NDArray[Any]] = [examples.token_ids, examples.weights]
        if examples.branches is not None:
            parts.append(examples.branches)
        # What the model made of the rows may differ in its last bits where it is made again.
        parts += [column for name, column in sorted(examples.columns.items()) if name != REFERENCE_LOGPS]
        return "-".join(f"{zlib.crc32(np.ascontiguousarray(part).data):08x}" for part in parts)

    @cached_property
    def _text_lengths_N(self) -> NDArray[np.int64]:
        """Tokens of the longest text of each example: its prompt and one completion."""
        examples = self._examples
        if examples.branches is None:
            return self._lengths_N
        starts_N = examples.offsets[:-1]
        trunks_N = np.add.reduceat(examples.branches == 0, starts_N, dtype=np.int64)
        numbers = [number for number in np.unique(examples.branches) if number != 0]
        completions = [np.add.reduceat(examples.branches == number, starts_N, dtype=np.int64) for number in numbers]
        longest_N: NDArray[np.int64] = np.max(completions, axis=0, initial=0)
        return trunks_N + longest_N

    def _order_depends_on(self) -> dict[str, Any]:
        return {
            "num_examples": len(self._examples),
            "num_tokens": len(self._examples.token_ids),
            "contents": self._contents,
            "seed": self._seed,
            "batch_size": self._batch_size,
            "batch_tokens": self._batch_tokens,
            "source_weights": None if self._source_weights is None else list(self._source_weights),
        }

    def _steps_of(self, epoch: int) -> Steps:
        if self._cached_steps[0] != epoch:
            order = epoch_order(
                len(self._examples),
                seed=self._seed,
                epoch=epoch,
                sources_N=self._sources_N,
                source_weights=self._source_weights,
            )
            self._cached_steps = (epoch, self._cut(order))
        return self._cached_steps[1]

    def _cut(self, order: NDArray[np.int64]) -> Steps:
        if self._batch_tokens is None:
            return np.split(order, np.arange(self._batch_size, len(order), self._batch_size))
        ends_N = np.cumsum(self._lengths_N[order])
        borders: list[int] = []
        drawn = 0
        while True:
            # At least one example, however long it is.
            border = int(np.searchsorted(ends_N, drawn + self._batch_tokens, side="right"))
            border = max(border, borders[-1] + 1 if borders else 1)
            if border >= len(order):
                return np.split(order, borders)
            borders.append(border)
            drawn = int(ends_N[border - 1])

    def _micro_batches(self, members: NDArray[np.int64]) -> list[Batch]:
        rows = self._rows(members)
        lengths = np.array([self._lengths_N[row].sum() for row in rows])
        dealt = deal(
            rows,
            lengths,
            rows_per_batch=self._micro_batch_size,
            tokens_per_batch=self.micro_batch_tokens,
            num_processes=self._num_processes,
        )
        shortest = self._examples[int(members[np.argmin(self._lengths_N[members])])]
        return [self._collate(batch) if batch else idle_batch(shortest) for batch in dealt[self._process_index]]

    def _rows(self, members: NDArray[np.int64]) -> list[list[int]]:
        if self._capacity is None:
            return [[int(member)] for member in members]
        packed = pack(self._lengths_N[members], capacity=self._capacity)
        if len(packed) < self._num_processes:
            packed = _spread(self._lengths_N[members], num_rows=min(self._num_processes, len(members)))
        return [members[row].tolist() for row in packed]

    def _collate(self, rows: Sequence[Sequence[int]]) -> Batch:
        return collate([[self._examples[member] for member in row] for row in rows], pad_token_id=self._pad_token_id)


def _spread(lengths_N: NDArray[np.int64], *, num_rows: int) -> list[NDArray[np.int64]]:
    """Documents over so many rows that every process has one: the longest first, each into the shortest row."""
    rows: list[list[int]] = [[] for _ in range(num_rows)]
    filled = np.zeros(num_rows, np.int64)
    for document in np.argsort(-lengths_N, kind="stable"):
        row = int(np.argmin(filled))
        rows[row].append(int(document))
        filled[row] += lengths_N[document]
    return [np.array(row, np.int64) for row in rows]


def evaluation_batches(
    examples: Examples,
    *,
    rows_per_batch: int | None = None,
    tokens_per_batch: int | None = None,
    pad_token_id: int,
    process_index: int = 0,
    num_processes: int = 1,
) -> list[Batch]:
    """Each example exactly once over all processes, sorted by length; see `deal` for how many make a batch.

    Every process gets the same number of batches, some perhaps idle, with a row of weight 0.
    """
    rows: list[Example] = list(examples)
    dealt = deal(
        rows,
        examples.lengths_N,
        rows_per_batch=rows_per_batch,
        tokens_per_batch=tokens_per_batch,
        num_processes=num_processes,
    )
    shortest = examples[int(np.argmin(examples.lengths_N))]
    return [
        collate([[row] for row in batch], pad_token_id=pad_token_id) if batch else idle_batch(shortest)
        for batch in dealt[process_index]
    ]
