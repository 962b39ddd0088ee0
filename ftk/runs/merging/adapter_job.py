"""What `ftk merge` of adapters was asked for, checked before anything is read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from ftk.core.errors import RecipeError
from ftk.merging.adapters.combine import ADDS, NEEDS_DENSITY, Combination, How

HOWS: tuple[How, ...] = ("linear", "concatenation", "svd", "ties", "dare_linear", "dare_ties")


@dataclass(frozen=True)
class MergeJob:
    """What was asked for, checked."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    combination: Combination
    out: Path
    shard_bytes: int

    @property
    def is_one_as_it_is(self) -> bool:
        """Whether one adapter is folded with its full strength."""
        return self.weights == (1.0,) and self.combination.how in ADDS


def checked_job(
    adapters: Sequence[str],
    weights: Sequence[float] | None,
    how: How,
    rank: int | None,
    density: float | None,
    seed: int,
    out: Path,
    shard_bytes: int,
    *,
    as_adapter: bool = False,
) -> MergeJob:
    """The job of `merge_adapters`, whose arguments these are.

    Raises:
        RecipeError: a number or word is none that it takes.
    """
    weights = tuple(map(float, weights)) if weights is not None else (1.0,) * len(adapters)
    if not adapters:
        raise RecipeError("there is no adapter to merge", place="--adapter")
    if len(weights) != len(adapters):
        raise RecipeError(
            f"expected as many weights as adapters, {len(adapters)}, found {len(weights)}", place="--weights"
        )
    if not all(map(math.isfinite, weights)) or not any(weights):
        raise RecipeError(
            f"weights must be numbers, not all of them 0: {', '.join(map(str, weights))}", place="--weights"
        )
    require_one_of(how, HOWS, "--how")
    if rank is not None and rank < 1:
        raise RecipeError(f"{rank} is no rank: expected 1 or more", place="--rank")
    if how == "svd" and rank is None:
        raise RecipeError("svd needs the rank that the result shall have", place="--rank")
    if how in ADDS and rank is not None:
        raise RecipeError(f"{how} keeps the sum of the ranks; a rank of its own has svd", place="--rank")
    if how in NEEDS_DENSITY and rank is not None and not as_adapter:
        raise RecipeError(f"{how} folded into the base has no rank. It has one with --as-adapter", place="--rank")
    if how in NEEDS_DENSITY and density is None:
        density = 0.5
    if density is not None and (how not in NEEDS_DENSITY or not 0 < density <= 1):
        raise RecipeError(
            f"density is the share of values that {', '.join(NEEDS_DENSITY)} keep, above 0 and at most 1: {density} "
            f"for {how}",
            place="--density",
        )
    return MergeJob(tuple(adapters), weights, Combination(how, rank, density, seed), out, shard_bytes)


def require_one_of(word: str | None, words: Sequence[str | None], flag: str) -> None:
    """Make sure that a flag's word is one of those there are.

    Raises:
        RecipeError: it is not.
    """
    if word in words:
        return
    known = [one for one in words if one is not None]
    near = get_close_matches(str(word), known, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise RecipeError(f"there is no {word}. There is {', '.join(known)}.{hint}", place=flag)


def text_of(file: str | None) -> str | None:
    """The text in a file, None for none.

    Raises:
        RecipeError: it cannot be read, or is empty.
    """
    if file is None:
        return None
    try:
        words = Path(file).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise RecipeError(f"{file} cannot be read as text: {error}", place="--text") from error
    if not words.strip():
        raise RecipeError(f"{file} is empty, so there is nothing to compare", place="--text")
    return words
