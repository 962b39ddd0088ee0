"""Small examples of preference data as prompts with completions, and every preference loss as an objective."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ftk.core.config import members
from ftk.core.types import Batch, Example
from ftk.data.collate import collate, idle_batch
from ftk.objectives.preference import PreferenceLoss
from ftk.objectives.preference.objective import PreferenceObjective
from ftk.objectives.preference.task import Preference

VOCABULARY = 48
LOSSES: dict[str, dict[str, Any]] = {
    # Betas that leave no loss flat on these rows.
    **{name: {"loss": {"name": name, "beta": 0.5}} for name in members(PreferenceLoss.__origin__)},
    "conservative dpo, js, with sft": {
        "loss": {"name": "dpo", "label_smoothing": 0.1, "divergence": "js"},
        "sft_weight": 0.3,
    },
    "slic": {"loss": {"name": "hinge", "reference": False}, "sft_weight": 1.0},
    "kto with sft": {"loss": {"name": "kto", "desirable_weight": 2.0}, "sft_weight": 0.3},
}


def objective_of(name: str) -> PreferenceObjective:
    return Preference.model_validate(LOSSES[name]).objective()


def examples(count: int, *, unpaired: bool, seed: int = 0) -> list[Example]:
    """Prompts of unequal length with two completions: chosen and rejected, or its own and that of another prompt."""
    rng = np.random.default_rng(seed)
    branches = (1, -1) if unpaired else (1, 2)
    made = []
    for index in range(count):
        trunk, *lengths = (int(one) for one in rng.integers(2, 7, 3))
        branches_L = np.repeat([0, *branches], [trunk, *lengths]).astype(np.int8)
        # Near what a model says that knows nothing yet, where no loss is flat.
        reference = np.array([-math.log(VOCABULARY) * length for length in lengths]) + rng.normal(size=2)
        columns = {"reference_logps": reference.astype(np.float32)}
        if unpaired:
            columns["desirable"] = np.asarray(index % 3 > 0, np.float32)
        made.append(
            Example(
                token_ids_L=rng.integers(1, VOCABULARY, len(branches_L)).astype(np.int32),
                weights_L=(branches_L != 0).astype(np.float32),
                answers_L=branches_L != 0,
                index=index,
                branches_L=branches_L,
                columns=columns,
            )
        )
    return made


def batch_of(rows: Sequence[Sequence[Example]], *, spare: Example) -> Batch:
    """A batch of rows of examples; an idle one without rows."""
    return collate(rows, pad_token_id=0) if rows else idle_batch(spare)
