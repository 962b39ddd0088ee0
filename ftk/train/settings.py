"""The sections of a recipe that the loop reads: `training`, `parallel`, `checkpoint` and `output`."""

from typing import Annotated, Literal

from pydantic import Field

from ftk.core.config import OneOrMore, Section
from ftk.core.interval import Interval
from ftk.train.optimizers import AdamW, Optimizer
from ftk.train.schedules import Cosine, Schedule

Positive = Annotated[int, Field(gt=0)]
Strategy = Literal["ddp", "fsdp", "fsdp_offload"]
"""How a model is spread over processes."""


class Training(Section):
    """How long, how fast, and in which precision."""

    epochs: Annotated[float, Field(gt=0)] = 3
    """Passes over the data."""
    max_steps: Positive | None = None
    """Optimizer steps at which training ends; wins over `epochs`."""
    batch_size: Positive = 32
    """Examples an optimizer step, over all processes and micro-batches."""
    batch_tokens: Positive | None = None
    """Real tokens an optimizer step instead of `batch_size`: examples are drawn until the next would pass it."""
    micro_batch_size: Positive | Literal["auto"] = "auto"
    """Rows a forward pass, on each process. It changes memory and speed, never the result.

    `auto` finds how many tokens fit on an accelerator, so that short rows go together in greater number; on a CPU it
    takes what runs fastest."""
    learning_rate: Annotated[float, Field(gt=0, lt=10)] = 2e-4
    """Peak learning rate. Customary: 1e-4 to 2e-4 for LoRA, 1e-5 to 2e-5 for full tuning."""
    optimizer: Optimizer = AdamW()
    """`adamw`, `adamw_8bit` (a quarter of its states' memory) or `sgd`."""
    schedule: Schedule = Cosine()
    """How the learning rate moves: `cosine`, `linear`, `constant` or `wsd` (warmup, stable, decay)."""
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Decoupled weight decay; norms, biases and embeddings are left alone."""
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    """Gradients are scaled down to this norm where they are longer; null never clips."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number format of the computation. `auto`: bf16 on an accelerator that has it, else fp32."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: much less memory, about a third more time."""
    loss_chunk: Positive | Literal["auto"] = "auto"
    """Tokens whose logits exist at once. It changes memory and speed, never the result.

    `auto` takes what suits the device: on a GPU at least 1,024, on a CPU at least 256, more of a small vocabulary.
    With a number, logits of a trained head that are more than one such chunk are always computed again in the backward
    pass; with `auto`, where they would take more than a sixteenth of a GPU."""
    compile: bool = False
    """Compile the model with torch.compile: slower to start, faster afterwards."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a loss that is not finite does: stop the run and name the rows, or skip the step and count it."""
    log_every: Positive = 1
    """Optimizer steps between lines of metrics.jsonl."""
    trackers: Annotated[tuple[Literal["tensorboard", "wandb", "mlflow"], ...], OneOrMore()] = ()
    """Experiment trackers that also receive the metrics."""


class Parallel(Section):
    """How many processes share the work."""

    processes: Positive | Literal["auto"] = "auto"
    """`auto` is one for each visible GPU, else 1. Under torchrun or a scheduler the group that is found wins."""
    strategy: Strategy = "ddp"
    """`ddp` keeps a copy of the weights on each process; `fsdp` shards weights, gradients and optimizer states.

    `fsdp_offload` is for GPUs: as `fsdp`, but the shards lie in the machine's memory, where its processor updates them.
    That is slower, and leaves GPUs little but activations. On a CPU it is `fsdp`. Under both, answers that evaluation
    draws and the reference of preferences need the whole weights on each GPU. Offloading has not been run on GPUs yet:
    ftk's tests run it on a CPU."""

    @property
    def shards(self) -> bool:
        """Whether each of several processes holds only a part of every weight."""
        return self.strategy != "ddp"


class Checkpointing(Section):
    """When the state of a run is saved, so that it can go on."""

    every: Interval | None = Interval(epochs=1)
    """Optimizer steps, or epochs such as `1 epoch`; null saves at the end alone."""
    keep: Positive = 2
    """How many of the latest checkpoints stay; the best one stays besides."""


class Output(Section):
    """Where results go."""

    folder: str = "runs/ftk"
    """Run folder. A folder that holds another run is never overwritten: the next number is taken."""
    push_to_hub: str | None = None
    """Hub repository that receives the final model, such as `me/my-model`; needs a token in the environment."""
