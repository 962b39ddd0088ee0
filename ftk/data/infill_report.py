"""What became of texts that were cut for infilling."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ftk.core.errors import DataError
from ftk.data.infill import CUT, NO_PYTHON, SUFFIX_FIRST, TOO_SHORT, InfillCutter
from ftk.data.infill_cuts import Cut, Level
from ftk.data.text_files import counted


@dataclass(frozen=True)
class InfillReport:
    """Counts of documents, or of pieces at the context level."""

    family: str
    cut: Cut
    level: Level
    num_cut: int
    num_suffix_first: int
    num_too_short: int
    num_no_python: int
    """Documents under `cut: syntax` that do not parse."""
    psm_only: bool
    context_weight: float = 1.0

    @classmethod
    def of(cls, cutter: InfillCutter, *, place: str) -> "InfillReport":
        """What a cutter did.

        Raises:
            DataError: nothing that was to be cut is long enough.
        """
        how, counts = cutter.how, cutter.counts
        if counts[TOO_SHORT] and not counts[CUT]:
            raise DataError(
                f"nothing can be cut for infilling: {counts[TOO_SHORT]:,} of {counts[TOO_SHORT]:,} texts that were to "
                f"be have less than two {_UNITS[how.cut]}. Give longer texts, or take a finer task.cut such as "
                "character",
                place=place,
            )
        return cls(
            how.format.family,
            how.cut,
            how.level,
            num_cut=counts[CUT],
            num_suffix_first=counts[SUFFIX_FIRST],
            num_too_short=counts[TOO_SHORT],
            num_no_python=counts[NO_PYTHON],
            psm_only=how.format.psm_only,
            context_weight=how.context_weight,
        )

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any] | None) -> "InfillReport | None":
        return None if facts is None else cls(**facts)

    def lines(self) -> list[str]:
        """What a person should know, a line each."""
        what = "piece" if self.level == "context" else "document"
        lighter = f"prefix and suffix at a weight of {self.context_weight:g}, " if self.context_weight < 1 else ""
        lines = [
            f"{counted(self.num_cut, what)} cut at {_UNITS[self.cut]} and rearranged for infilling in the format of "
            f"{self.family}, {self.num_suffix_first:,} with the suffix first; all text and the end of each middle is "
            f"learned, {lighter}the marks before prefix, suffix and middle are given"
        ]
        if self.num_too_short:
            lines.append(f"too short to be cut: {counted(self.num_too_short, what)}, learned left to right")
        if self.num_no_python:
            lines.append(f"no Python that parses: {counted(self.num_no_python, 'document')}, cut at lines")
        if self.psm_only and self.num_suffix_first:
            lines.append(
                f"models of {self.family} have seen prefix, suffix, middle in this order alone; task.spm_rate: 0 keeps "
                "to it"
            )
        return lines


_UNITS = {"character": "characters", "token": "tokens", "line": "lines", "syntax": "syntax nodes"}
