"""The recipe: what `ftk train` reads, as one frozen value."""

from typing import Annotated

from pydantic import Field

from ftk.core.config import Section
from ftk.data.settings import DataSettings
from ftk.evaluation.settings import EvaluationSettings
from ftk.models.settings import ModelSettings
from ftk.objectives import Task
from ftk.objectives.sft import Sft
from ftk.quantization import Quantization
from ftk.train.settings import Checkpointing, Output, Parallel, Training
from ftk.tuning import Tuning
from ftk.tuning.lora import Lora


class Recipe(Section):
    """Everything that decides a run."""

    model: ModelSettings
    """The model that is tuned."""
    task: Task = Sft()
    """What is learned: `sft` (answers), `cpt` (plain text), `infill` (holes in text) or `preference` (which of two
    answers is better)."""
    data: DataSettings
    """What the model is trained and evaluated on."""
    tuning: Tuning = Lora()
    """Which weights move: `full` or `lora`."""
    quantization: Quantization | None = None
    """How frozen weights are stored beneath adapters: `nf4` (QLoRA), `int8`, or null for the model's own precision."""
    training: Training = Training()
    """How long, how fast, and in which precision."""
    parallel: Parallel = Parallel()
    """How many processes share the work."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """How the model is measured, on `data.eval`."""
    checkpoint: Checkpointing = Checkpointing()
    """When the state of a run is saved, so that it can go on."""
    output: Output = Output()
    """Where results go."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of everything random: data order, dropout, new weights."""
