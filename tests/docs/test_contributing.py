"""The worked example of CONTRIBUTING.md is true: its code runs, joins the union by one line, and does what it says."""

import re
from pathlib import Path
from types import ModuleType
from typing import Annotated

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter, ValidationError

from ftk.core.config import ByName
from ftk.core.types import Example, TokenScores
from ftk.data.collate import collate
from ftk.objectives.preference.compared import Pairs
from ftk.objectives.preference.dpo import Dpo
from ftk.objectives.preference.objective import PreferenceObjective

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    module = ModuleType("sppo")
    exec(compile(code[1], "CONTRIBUTING.md", "exec", dont_inherit=True), module.__dict__)
    return module


def test_the_fixed_point_that_the_guide_gives(example: ModuleType) -> None:
    logps_P, lengths_P = torch.tensor([-7.0, -31.0]), torch.tensor([3.0, 9.0])
    nothing_moved = Pairs(logps_P, logps_P - 1, logps_P, logps_P - 1, lengths_P, lengths_P)
    torch.testing.assert_close(example.Sppo().losses(nothing_moved), torch.full((2,), 50.0))
    arrived = nothing_moved._replace(chosen_P=logps_P + 5, rejected_P=logps_P - 1 - 5)
    torch.testing.assert_close(example.Sppo().losses(arrived), torch.zeros(2))


def test_one_line_in_the_union_is_enough(example: ModuleType) -> None:
    union = TypeAdapter(Annotated[Dpo | example.Sppo, ByName(default="dpo")])
    loss = union.validate_python("sppo")
    assert loss == union.validate_python({"name": "sppo", "beta": 0.1})
    with pytest.raises(ValidationError, match="greater than 0"):
        union.validate_python({"name": "sppo", "beta": 0})


def test_what_all_losses_share_takes_it_as_it_is(example: ModuleType) -> None:
    """A prompt of 2 tokens, a chosen completion of 2 and a rejected one of 1; every token's log-probability is -3."""
    branches_L = np.array([0, 0, 1, 1, 2], np.int8)
    pair = Example(
        token_ids_L=np.arange(5, dtype=np.int32),
        weights_L=(branches_L > 0).astype(np.float32),
        answers_L=branches_L > 0,
        index=0,
        branches_L=branches_L,
        columns={"reference_logps": np.array([-7, -2], np.float32)},
    )
    batch = collate([[pair]], pad_token_id=0)
    objective = PreferenceObjective(example.Sppo(beta=0.5))
    logps_BL = -3.0 * batch.weights_BL
    terms = objective.terms(TokenScores(logps_BL, batch.answers_BL), batch, {})
    # The log-ratios are 1 and -1: just the goals.
    assert terms.sums["preference"].item() == 0
    figures = objective.figures({name: float(value) for name, value in terms.observed.items()})
    assert (figures["rewards_chosen"], figures["rewards_rejected"], figures["preference_accuracy"]) == (0.5, -0.5, 1)


def test_the_layers_are_those_of_the_contract() -> None:
    """The drawing in the guide and import-linter's contract name the same layers in the same order."""
    import tomllib

    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]
    drawn = re.search(r"^cli .*core$", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert drawn is not None
    in_guide = [set(re.findall(r"\w+", layer)) for layer in drawn[0].split("→")]
    in_contract = [set(re.findall(r"ftk\.(\w+)", layer)) for layer in contract["layers"]]
    assert in_guide == in_contract
