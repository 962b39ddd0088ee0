"""Log-probabilities of all completions by the model as the run begins: computed once, kept as a column of the data.

Shapes: N examples, K completions of an example.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ftk.core.mode import evaluating
from ftk.core.types import REFERENCE_LOGPS, Batch, Examples
from ftk.data.cache import default_cache_folder
from ftk.data.collate import collate
from ftk.data.deal import deal
from ftk.data.settings import Source
from ftk.models.scoring import ScoringModel
from ftk.numerics.completions import completion_sums
from ftk.recipe.schema import Recipe
from ftk.runs.environment import packages
from ftk.runs.forward_size import forward_tokens
from ftk.runs.reference_cache import (
    Parts,
    ReferenceCache,
    ReferenceFacts,
    digest_of_code,
    digest_of_model,
    digest_of_rows,
)
from ftk.runs.training_data import Part, TrainingData
from ftk.runs.tuned_model import StartModel

if TYPE_CHECKING:
    from accelerate import Accelerator

ROWS_PER_PART = 256
"""Rows after which their figures are on the disk: what an interrupted pass loses at most."""
SECONDS_BETWEEN_WORDS = 30.0
_COMPUTED_WITH = ("torch", "transformers", "peft", "bitsandbytes")
"""Packages of which another version may give other figures."""

Say = Callable[[str], None]
FoundT = TypeVar("FoundT")


def with_reference(
    data: TrainingData, start: StartModel, recipe: Recipe, accelerator: "Accelerator", say: Say
) -> TrainingData:
    """The data with the reference as a column, from the cache where that was made from the same model and rows.

    Data for a task that needs none stays as it is. Nothing may have been added to the model yet: then there is nothing
    to switch off, and never a second copy. It is in evaluation mode meanwhile. Every process must call this; rows are
    dealt over them.
    """
    if not recipe.task.needs_reference:
        return data
    with accelerator.autocast():
        scoring = ScoringModel(start.causal_lm, trees=recipe.task.rows == "pairs")
    told = _precision(start, recipe, accelerator)
    weights = _from_main(accelerator, lambda: digest_of_model(start.place, recipe.model.context))

    def referred(part: Part, sources: Sequence[Source]) -> Part:
        examples = part.examples
        facts = ReferenceFacts(
            data=", ".join(map(_name, sources)),
            model=start.place.name,
            weights=weights,
            rows=digest_of_rows(examples),
            precision=told,
        )
        cache = ReferenceCache(default_cache_folder(), facts)
        logps_NK = reference_logps(
            scoring, examples, cache=cache, pad_token_id=data.pad_token_id, accelerator=accelerator, say=say
        )
        return replace(part, examples=replace(examples, columns={**examples.columns, REFERENCE_LOGPS: logps_NK}))

    train = referred(data.train, recipe.data.train)
    return replace(data, train=train, eval=referred(data.eval, recipe.data.eval) if data.eval is not None else None)


def reference_logps(
    scoring: nn.Module,
    examples: Examples,
    *,
    cache: ReferenceCache,
    pad_token_id: int,
    accelerator: "Accelerator",
    say: Say,
) -> NDArray[np.float32]:
    """Sum of log-probabilities in nats, [N, K], of chosen and rejected, or of its own completion and what lies aside.

    A part's batches are the same on any number of processes, so that a pass that goes on elsewhere gives the same
    figures.
    """
    num_completions = _num_completions(examples)
    # The longest first, which finds at once that memory is too small.
    order = np.argsort(-examples.lengths_N, kind="stable")
    parts = {number: order[first : first + ROWS_PER_PART] for number, first in _starts(len(order))}
    shapes = {number: (len(rows), num_completions) for number, rows in parts.items()}
    told, known = _from_main(accelerator, lambda: (cache.begin(), cache.parts(shapes)))
    for sentence in _about(examples, cache, told, known):
        say(f"reference {sentence}")
    logps_NK = np.zeros((len(examples), num_completions), np.float32)
    spoken, num_done = time.monotonic(), sum(map(len, known.values()))
    for number, rows in parts.items():
        if number not in known:
            tokens = forward_tokens(accelerator.device)
            batches = _batches(examples, rows, tokens_per_batch=tokens, pad_token_id=pad_token_id)
            known[number] = _part(scoring, batches, num_completions=num_completions, accelerator=accelerator)
            if accelerator.is_main_process:
                cache.save(number, known[number])
            num_done += len(rows)
            if time.monotonic() - spoken > SECONDS_BETWEEN_WORDS:
                spoken = time.monotonic()
                say(f"reference {num_done:,} of {len(examples):,} rows")
        logps_NK[rows] = known[number]
    return logps_NK


def _name(source: Source) -> str:
    """A source as a person tells it from others, of the same file perhaps."""
    which = [part for part in (source.subset, source.split, source.revision) if part]
    return f"{source.source} ({', '.join(which)})" if which else source.source


def _starts(num_rows: int) -> enumerate[int]:
    return enumerate(range(0, num_rows, ROWS_PER_PART))


def _num_completions(examples: Examples) -> int:
    """Branches of an example, and one more where something lies aside."""
    assert examples.branches is not None
    return int(examples.branches.max()) + int(examples.branches.min() < 0)


def _about(examples: Examples, cache: ReferenceCache, told: str | None, known: Parts) -> list[str]:
    lines = [told] if told else []
    num_known = sum(map(len, known.values()))
    rows = f"{len(examples):,} rows of {cache.facts.data}"
    if num_known == len(examples):
        return [*lines, f"log-probabilities of {rows} (from the cache)"]
    found = f"; {num_known:,} are in the cache" if num_known else ""
    return [*lines, f"log-probabilities of {rows}, before anything is learned{found}"]


def _batches(examples: Examples, rows: NDArray[np.int64], *, tokens_per_batch: int, pad_token_id: int) -> list[Batch]:
    # Dealt as for one process, in the order of the rows, which are the longest first.
    (groups,) = deal(rows.tolist(), examples.lengths_N[rows], tokens_per_batch=tokens_per_batch, num_processes=1)
    return [collate([[examples[row]] for row in group], pad_token_id=pad_token_id) for group in groups]


def _part(
    scoring: nn.Module, batches: Sequence[Batch], *, num_completions: int, accelerator: "Accelerator"
) -> NDArray[np.float32]:
    """The figures of one part, in the order of its rows, on every process."""
    from accelerate.utils import gather_object

    own = range(accelerator.process_index, len(batches), accelerator.num_processes)
    with evaluating(scoring), torch.no_grad(), accelerator.autocast():
        found = [(number, _scored(scoring, batches[number].to(accelerator.device), num_completions)) for number in own]
    everywhere = gather_object(found) if accelerator.num_processes > 1 else found
    return np.concatenate([logps_NK for _, logps_NK in sorted(everywhere, key=lambda one: int(one[0]))])


def _scored(scoring: nn.Module, batch: Batch, num_completions: int) -> NDArray[np.float32]:
    if batch.aside is None:
        logps_NK = completion_sums(scoring(batch).logps_BL, batch, num_branches=num_completions)
    else:
        own_NK = completion_sums(scoring(batch).logps_BL, batch, num_branches=num_completions - 1)
        aside_N1 = completion_sums(scoring(batch.aside).logps_BL, batch.aside, num_branches=1)
        logps_NK = torch.cat([own_NK, aside_N1], dim=1)
    return logps_NK.float().cpu().numpy()


def _precision(start: StartModel, recipe: Recipe, accelerator: "Accelerator") -> str:
    versions = {name: version for name, version in packages().items() if name in _COMPUTED_WITH}
    kernels = start.causal_lm.config.get_text_config()._attn_implementation
    stored = sorted({str(parameter.dtype) for parameter in start.causal_lm.parameters()})
    quantization = recipe.quantization.model_dump(mode="json") if recipe.quantization else None
    # An adapter that was merged into its base gives other last digits than one beside it.
    merged = start.place.adapter_folder is not None and recipe.tuning.name == "full"
    device = accelerator.device.type
    return repr(
        [accelerator.mixed_precision, stored, merged, quantization, kernels, device, versions, digest_of_code()]
    )


def _from_main(accelerator: "Accelerator", find: Callable[[], FoundT]) -> FoundT:
    """What the main process found, on every process."""
    from accelerate.utils import broadcast_object_list

    found = [find() if accelerator.is_main_process else None]
    broadcast_object_list(found)
    return cast("FoundT", found[0])
