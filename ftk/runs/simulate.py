"""`ftk estimate-memory --simulate`: the analytic answer, with the step itself run on imagined weights."""

from dataclasses import replace
from typing import Any

from ftk.core.errors import ModelError
from ftk.memory.estimate import Estimate, MemoryBytes
from ftk.models.load import UNREADABLE
from ftk.runs.estimate import Question
from ftk.runs.imagined_batch import imagined_batches
from ftk.runs.quiet import quieten
from ftk.runs.seen_rows import micro_batch_rows, text_length
from ftk.runs.simulate_step import simulate_step
from ftk.train.precision import Precision

KINDS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "overhead")


def simulate(asked: Question, answer: Estimate) -> Estimate:
    """What `answer` says, with its bytes of training replaced by those that one step of the run allocates.

    What several processes change, strategies and exchange, stays the analytic answer's.

    Raises:
        ModelError: the model cannot be built, or cannot be run without numbers.
    """
    quieten()
    setup = asked.setup
    precision = asked.recipe.training.precision
    resolved: Precision = precision if precision != "auto" else ("bf16" if setup.device == "cuda" else "fp32")
    simulated = simulate_step(
        asked.recipe,
        _config(asked),
        imagined_batches(
            asked.recipe,
            rows=micro_batch_rows(asked.recipe),
            length=text_length(asked.recipe, asked.numbers),
            count=2 if setup.accumulates else 1,
        ),
        precision=resolved,
        device=setup.device,
        device_bytes=setup.device_bytes,
    )
    alone, each = answer.training, answer.per_device.bytes
    workspace = replace(simulated.bytes, overhead=simulated.bytes.overhead + alone.overhead)
    return replace(
        answer,
        training=workspace,
        per_device=replace(answer.per_device, bytes=_changed(workspace, alone, each)),
        method="simulated",
        peak_moment=simulated.moment,
        notes=(*answer.notes, *simulated.notes),
    )


def _changed(simulated: MemoryBytes, alone: MemoryBytes, each: MemoryBytes) -> MemoryBytes:
    """The simulated bytes, each kind by as much less or more on a device of a group as the analytic answer has it."""
    found = {}
    for kind in KINDS:
        before, after = getattr(alone, kind), getattr(each, kind)
        value = getattr(simulated, kind)
        found[kind] = value * after // before if before else value + after
    return MemoryBytes(**found)


def _config(asked: Question) -> Any:
    from transformers import AutoConfig

    values = dict(asked.numbers.config)
    kind = str(values.pop("model_type", ""))
    values.pop("quantization_config", None)
    try:
        return AutoConfig.for_model(kind, **values)
    except UNREADABLE as error:
        raise ModelError(
            f"transformers does not know how to build {asked.numbers.name} (model_type {kind}), so no step of it can "
            "be simulated. Leave out --simulate for the analytic estimate"
        ) from error
