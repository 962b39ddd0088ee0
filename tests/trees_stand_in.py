"""Examples of a prompt with completions, as preference data gives them."""

from collections.abc import Sequence

import numpy as np

from ftk.core.types import Example, Examples


def tree(
    trunk: Sequence[int],
    *completions: Sequence[int],
    branches: Sequence[int] | None = None,
    index: int = 0,
    **columns: Sequence[float] | float,
) -> Example:
    """A prompt of weight 0 and completions of weight 1; `branches` numbers them otherwise than 1, 2, …"""
    numbers = branches or range(1, len(completions) + 1)
    is_learned = np.array([0] * len(trunk) + [1] * sum(map(len, completions)))
    return Example(
        token_ids_L=np.array([*trunk, *(token for one in completions for token in one)], np.int32),
        weights_L=is_learned.astype(np.float32),
        answers_L=is_learned.astype(np.bool_),
        index=index,
        branches_L=np.array(
            [0] * len(trunk) + [number for number, one in zip(numbers, completions, strict=True) for _ in one], np.int8
        ),
        columns={name: np.array(value, np.float32) for name, value in columns.items()},
    )


def flat(examples: Sequence[Example]) -> Examples:
    """The same examples as arrays, as they come from a cache."""
    assert all(example.branches_L is not None for example in examples)
    return Examples(
        token_ids=np.concatenate([example.token_ids_L for example in examples]),
        weights=np.concatenate([example.weights_L for example in examples]),
        answers=np.concatenate([example.answers_L for example in examples]),
        offsets=np.cumsum([0, *(len(example.token_ids_L) for example in examples)], dtype=np.int64),
        rows_N=np.arange(1, len(examples) + 1),
        sources_N=np.zeros(len(examples), np.int32),
        source_names=("pairs.jsonl",),
        branches=np.concatenate([example.branches_L for example in examples if example.branches_L is not None]),
        columns={name: np.stack([example.columns[name] for example in examples]) for name in examples[0].columns},
    )
