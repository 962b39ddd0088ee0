"""What an adapter changes of one parameter.

Each change takes the weight as a float32 tensor of its own, which it may write to, and returns the new weight.
Shapes: O rows and I columns of a weight, R rank.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ftk.core.errors import ModelError
from ftk.merging.adapters.architecture import Piece
from ftk.merging.adapters.formulas import add_low_rank, expert_factors, set_magnitude


class Change(Protocol):
    """A change of one parameter."""

    def apply(self, weight: Tensor, piece: Piece) -> Tensor:
        """The new weight; `piece` says which part of the parameter `weight` is."""


@dataclass(frozen=True)
class LowRank:
    """`weight + scaling * b @ a`, and after that each row brought to `magnitude` where there is one."""

    a_RI: Tensor
    b_OR: Tensor
    scaling: float
    transposed: bool = False
    """Whether the weight is stored as [I, O]: an embedding's, or that of GPT-2's modules."""
    magnitude_O: Tensor | None = None
    num_experts: int | None = None
    """Where the parameter holds experts, [E, O, I], and the factors hold all of theirs."""

    def apply(self, weight: Tensor, piece: Piece) -> Tensor:
        if self.num_experts is None:
            return self._one(weight, self.a_RI, self.b_OR, piece)
        if piece.expert is not None:
            return self._expert(weight, piece.expert, piece)
        for expert in range(self.num_experts):
            self._expert(weight[expert], expert, piece)
        return weight

    def _expert(self, weight: Tensor, expert: int, piece: Piece) -> Tensor:
        a_RI, b_OR = expert_factors(self.a_RI, self.b_OR, expert=expert, num_experts=self.num_experts or 1)
        return self._one(weight, a_RI, b_OR, piece)

    def _one(self, weight: Tensor, a_RI: Tensor, b_OR: Tensor, piece: Piece) -> Tensor:
        rows = slice(piece.first_row, None if piece.num_rows is None else piece.first_row + piece.num_rows)
        # Rows of what is stored are outputs, or inputs where it is stored the other way round.
        a_RI, b_OR = (a_RI[:, rows], b_OR) if self.transposed else (a_RI, b_OR[rows])
        as_OI = weight.T if self.transposed else weight
        if as_OI.ndim > 2:
            # A convolution: its kernel is one long row of inputs.
            as_OI, a_RI, b_OR = as_OI.view(as_OI.shape[0], -1), a_RI.reshape(a_RI.shape[0], -1), b_OR.flatten(1)
        add_low_rank(as_OI, a_RI, b_OR, scaling=self.scaling)
        if self.magnitude_O is not None:
            set_magnitude(as_OI, self.magnitude_O)
        return weight

    def factors(self) -> tuple[Tensor, Tensor]:
        """`a` and `b` in float32, the scaling within `b`."""
        return self.a_RI.float(), self.b_OR.float() * self.scaling


@dataclass(frozen=True)
class Scale:
    """The weight times numbers that are spread over its rows or columns.

    Source: Liu et al. 2022 (arXiv:2205.05638), section 3.3.
    """

    factors: Tensor

    def apply(self, weight: Tensor, piece: Piece) -> Tensor:
        return weight.mul_(self.factors.float())


@dataclass(frozen=True)
class Replace:
    """Another tensor in the weight's place; it may have more rows, as after tokens were added."""

    values: Tensor

    def apply(self, weight: Tensor, piece: Piece) -> Tensor:
        return self.values.float().clone()


@dataclass(frozen=True)
class ReplaceRows:
    """Other rows for some tokens; those past the weight's last one were added to the vocabulary."""

    rows_T: Tensor
    values_TD: Tensor

    @property
    def num_rows(self) -> int:
        """Rows that the weight has at least."""
        return int(self.rows_T.max()) + 1

    def apply(self, weight: Tensor, piece: Piece) -> Tensor:
        if self.num_rows > len(weight):
            weight = torch.cat([weight, weight.new_zeros(self.num_rows - len(weight), *weight.shape[1:])])
        return weight.index_copy_(0, self.rows_T, self.values_TD.float())


@dataclass(frozen=True)
class Add:
    """A number more for each output: the bias of an adapter."""

    values_O: Tensor

    def apply(self, weight: Tensor, piece: Piece) -> Tensor:
        return weight.add_(self.values_O.float())


def apply_all(weight: Tensor, changes: "list[Change]", piece: Piece) -> Tensor:
    """The weight in float32 after all changes; `weight` itself stays as it is.

    Raises:
        ModelError: the result is not finite.
    """
    # Always a copy: the weight may lie in a mapped file.
    changed = weight.to(torch.float32, copy=True).contiguous()
    for change in changes:
        changed = change.apply(changed, piece)
    if not bool(changed.isfinite().all()):
        raise ModelError(
            f"{piece.parameter} is NaN or infinite once the adapter is folded into it: the adapter, or its base, is "
            "broken. Take the adapter from an earlier checkpoint"
        )
    return changed
