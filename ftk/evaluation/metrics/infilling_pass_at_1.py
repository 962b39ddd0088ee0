"""Pass@1 of middles: the program with the hole filled passes its tests."""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ftk.core.config import Section
from ftk.core.errors import DataError
from ftk.evaluation.sandbox import Limits, check_protection, run_python

_NEEDED = ("prefix", "suffix", "test", "entry_point")


def program(middle: str, row: Mapping[str, Any]) -> str:
    """The hole filled, its tests behind it, and the call that runs them.

    Source: Chen et al. 2021 (arXiv:2107.03374), section 2.2, whose files bring `check(candidate)` and `entry_point`.
    """
    return f"{row['prefix']}{middle}{row['suffix']}\n{row['test']}\ncheck({row['entry_point']})\n"


class InfillingPassAt1(Section):
    """The share of holes whose program passes its tests; rows need `test` (a function `check`) and `entry_point`.

    Each program is run on this machine, in a process of its own with limits on time, memory and files, without a
    network and without this environment's variables. It can read what you can read, and write where you can write: run
    it in a container where that matters."""

    name: Literal["infilling_pass_at_1"] = "infilling_pass_at_1"
    """`infilling_pass_at_1`: the program with the hole filled passes its tests."""
    run_generated_code: bool = False
    """Must be true: code that a model wrote is run on this machine, and it is not to be trusted."""
    time_limit_seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    """What one program may take, on the clock; after that it is killed with all that it has started."""
    memory_limit_mb: Annotated[int, Field(ge=64)] = 1024
    """Address space of one program, in units of 1,000,000 bytes."""
    allow_network: bool = False
    """Run programs even where this machine cannot cut them off from the network, which is an error otherwise."""
    num_workers: Annotated[int, Field(ge=1)] | None = None
    """Programs that run at once; by default as many as there are cores."""

    @model_validator(mode="after")
    def _is_asked_for(self) -> Self:
        if not self.run_generated_code:
            raise ValueError(
                "infilling_pass_at_1 runs code that the model wrote on this machine, which is not done unless it is "
                "asked for: {name: infilling_pass_at_1, run_generated_code: true}"
            )
        return self

    def check_rows(self, columns: Sequence[Mapping[str, Any]]) -> None:
        """
        Raises:
            DataError: a row has no tests.
            SetupError: this machine cannot keep programs from the network.
        """
        for number, row in enumerate(columns, start=1):
            missing = [name for name in _NEEDED if not isinstance(row.get(name), str)]
            if missing:
                raise DataError(
                    f"infilling_pass_at_1 needs the columns {', '.join(_NEEDED)}, and evaluation row {number} has no "
                    f"{', '.join(missing)}. Holes cut out of texts have no tests: leave the metric out for them"
                )
        check_protection(self._limits())

    def score(
        self, answers: Sequence[str], references: Sequence[str], columns: Sequence[Mapping[str, Any]]
    ) -> dict[str, list[float]]:
        """1 or 0 for each hole.

        Raises:
            DataError: a row has no tests.
            SetupError: this machine cannot keep programs from the network.
        """
        self.check_rows(columns)
        limits = self._limits()
        programs = [program(answer, row) for answer, row in zip(answers, columns, strict=True)]
        with ThreadPoolExecutor(self.num_workers or len(os.sched_getaffinity(0))) as pool:
            passed = pool.map(lambda text: run_python(text, limits), programs)
            return {self.name: [float(one) for one in passed]}

    def _limits(self) -> Limits:
        return Limits(self.time_limit_seconds, self.memory_limit_mb * 1_000_000, allow_network=self.allow_network)
