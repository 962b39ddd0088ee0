"""`ftk data check`: what is wrong with the rows of a recipe, or of a data file."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ftk.core.errors import RunError
from ftk.data.check.against import MOST_ROWS, Profile, differences, frequent_words
from ftk.data.check.benchmark import Benchmark, benchmark_of
from ftk.data.check.exact_duplicate import ExactDuplicate
from ftk.data.check.finding import SEVERITIES, Finding, Places, Severity, Tally, by_severity
from ftk.data.check.length_outlier import LengthOutlier, Spread
from ftk.data.check.near_duplicates import NearDuplicate
from ftk.data.check.overlap import PromptHash, exact_overlap, near_overlap
from ftk.data.check.row import TEXT_COLUMN, CheckedRow, Family, family_of
from ftk.data.check.scan import Chunk, Plan, Scan, chunks_of, read_chunk, scan
from ftk.data.settings import Source
from ftk.data.source import SourceRow, reader_of
from ftk.data.text_limit import within_limit
from ftk.data.texts import read_texts
from ftk.models.load import load_tokenizer
from ftk.recipe.schema import Recipe
from ftk.runs.check_plan import CheckRequest, family_learned, for_training, plan_of, recipe_to_check
from ftk.runs.trust import tell_of_code

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class DataReport:
    """What was found."""

    findings: tuple[Finding, ...]
    """The worst first."""
    num_rows: Mapping[str, int]
    """By part: `train`, `eval`, `against`."""
    lengths: Mapping[str, Spread]
    """Of `train` and `eval`."""
    has_model: bool
    """Whether rows were rendered."""
    seconds: float

    def count(self, severity: Severity) -> int:
        """Findings of that severity."""
        return sum(one.severity == severity for one in self.findings)

    def as_json(self) -> dict[str, Any]:
        return {
            "findings": [one.as_json() for one in self.findings],
            "counts": {severity: self.count(severity) for severity in reversed(SEVERITIES)},
            "num_rows": dict(self.num_rows),
            "lengths": {part: asdict(spread) for part, spread in self.lengths.items()},
            "has_model": self.has_model,
            "seconds": self.seconds,
        }

    def fail_on(self, severity: Severity) -> None:
        """
        Raises:
            RunError: there is a finding of that severity or a higher one; it carries the report for a machine.
        """
        worse = SEVERITIES[SEVERITIES.index(severity) :]
        found = {one: self.count(one) for one in reversed(worse) if self.count(one)}
        if found:
            told = ", ".join(f"{number:,} of severity {one}" for one, number in found.items())
            raise RunError(
                f"the check found {told}, and --fail-on {severity} was asked for. Correct the rows, or take them out "
                "(`ftk data fix` does what is mechanical)",
                answer=self.as_json(),
            )


def check_data(request: CheckRequest, *, tell: Callable[[str], None]) -> DataReport:
    """Look for all that makes a data set worse than it could be.

    Args:
        request: a recipe is checked with its model's tokenizer and template; a data file with those of `model`, where
            it is given.
        tell: takes sentences for a person.

    Raises:
        RecipeError: a flag or the recipe is wrong.
        ModelError: the model's tokenizer cannot be read.
        DataError: a file cannot be read, or is of no known format.
    """
    start = time.perf_counter()
    recipe, is_bare = recipe_to_check(request)
    has_model = not is_bare or request.model is not None
    learns = None if is_bare else family_learned(recipe)
    if has_model:
        tell_of_code(recipe.model, tell)
    plan = plan_of(recipe, request, has_model=has_model, learns=learns)
    real = _real_rows(request.against) if request.against is not None else []
    profile = Profile(words=frequent_words(real))
    benchmarks = tuple(_benchmark(name) for name in request.benchmarks)
    train = _scan(recipe, recipe.data.train, for_training(plan, profile if real else None, benchmarks), learns, request)
    tally = _judged(train, plan)
    findings, num_rows = tally.findings("train"), {"train": len(train.places)}
    spreads = {"train": _spread(train, plan)}
    if recipe.data.eval:
        held_out = _scan(recipe, recipe.data.eval, plan, learns, request)
        num_rows["eval"], spreads["eval"] = len(held_out.places), _spread(held_out, plan)
        findings += _of_held_out(train, held_out, plan, request)
    if real:
        num_rows["against"] = len(real)
        findings += _against(train, real, profile)
    return DataReport(
        findings=tuple(by_severity(findings)),
        num_rows=num_rows,
        lengths={part: spread for part, spread in spreads.items() if spread is not None},
        has_model=has_model,
        seconds=time.perf_counter() - start,
    )


def _scan(recipe: Recipe, sources: Sequence[Source], plan: Plan, learns: Family | None, request: CheckRequest) -> Scan:
    chunks = chain.from_iterable(_chunks(source, learns, _counting(recipe, source)) for source in sources)
    return scan(chunks, plan, num_processes=request.num_processes)


def _counting(recipe: Recipe, source: Source) -> "PreTrainedTokenizerBase | None":
    """What counts the tokens of a source that is limited in them."""
    limited = source.limit is not None and source.limit.tokens is not None
    return load_tokenizer(recipe.model) if limited else None


def _chunks(
    source: Source, learns: Family | None, tokenizer: "PreTrainedTokenizerBase | None" = None
) -> Iterator[Chunk]:
    rows = _documents(source, tokenizer) if learns == "texts" else reader_of(source).rows()
    first = next(rows)  # a source without rows has told so itself
    family, format = family_of(first, source.format, learns=learns)
    return chunks_of(chain([first], rows), source, family, format)


def _documents(source: Source, tokenizer: "PreTrainedTokenizerBase | None") -> Iterator[SourceRow]:
    for reader in read_texts([source], role=source.source).readers:
        for block in within_limit(reader.blocks(Counter()), source.limit, tokenizer):
            yield SourceRow(block.row, block.source, {TEXT_COLUMN: block.text})


def _judged(seen: Scan, plan: Plan) -> Tally:
    """What was said of single rows, and of rows among the others."""
    for check in plan.set_checks:
        seen.tally.add_all(check.judge(seen.measured[check.name], seen.places), seen.places)
    return seen.tally


def _spread(seen: Scan, plan: Plan) -> Spread | None:
    check = next(one for one in plan.set_checks if isinstance(one, LengthOutlier))
    return check.spread(seen.measured[check.name])


def _of_held_out(train: Scan, held_out: Scan, plan: Plan, request: CheckRequest) -> list[Finding]:
    tally = _judged(held_out, plan)
    row, prompt = ExactDuplicate.name, PromptHash.name
    exact = exact_overlap(
        train.measured[row],
        train.measured[prompt],
        train.places,
        held_out_rows_E=held_out.measured[row],
        held_out_prompts_E=held_out.measured[prompt],
    )
    tally.add_all(exact, held_out.places)
    if request.near:
        near = near_overlap(
            train.measured[NearDuplicate.name],
            train.places,
            held_out_E=held_out.measured[NearDuplicate.name],
            threshold=request.similarity,
            leave_out=frozenset(one.place for one in exact),
        )
        tally.add_all(near, held_out.places)
    return tally.findings("eval")


def _against(train: Scan, real: Sequence[CheckedRow], profile: Profile) -> list[Finding]:
    tally = Tally()
    measured_N = profile.measure(real)
    names = tuple(dict.fromkeys(row.source for row in real))
    sources_N = np.array([names.index(row.source) for row in real], np.int32)
    places = Places(np.array([row.number for row in real], np.int64), sources_N, names)
    tally.add_all(differences(train.measured[profile.name], measured_N, words=profile.words), places)
    return tally.findings("against")


def _real_rows(name: str) -> list[CheckedRow]:
    rows = islice(_rows_of(name), MOST_ROWS)
    return [row for row in rows if not row.fault and row.prompt]


def _benchmark(name: str) -> Benchmark:
    return benchmark_of(name, [row for row in _rows_of(name) if not row.fault])


def _rows_of(name: str) -> Iterator[CheckedRow]:
    for chunk in _chunks(Source(source=name), None):
        yield from read_chunk(chunk)
