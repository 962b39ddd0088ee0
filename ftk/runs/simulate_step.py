"""One training step without numbers: the very parts of a run on imagined weights, every allocation followed."""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from ftk.core.errors import ModelError
from ftk.core.types import Batch
from ftk.memory.eight_bits import gpu_product
from ftk.memory.estimate import MemoryBytes
from ftk.memory.follow import Follow, Peak
from ftk.memory.gpu_attention import gpu_attention
from ftk.memory.gpu_autocast import gpu_autocast
from ftk.memory.gpus import CUDA_BLOCK
from ftk.memory.head import UNKNOWN_GPU
from ftk.memory.imagine import Imagine, imagining, movable
from ftk.memory.quantized import quantize_imagined
from ftk.memory.repeat import kinds_of, prolonged, short_lengths, shortened
from ftk.memory.substitutes import substitutes
from ftk.models.locate import ModelPlace
from ftk.numerics.head import Budget
from ftk.recipe.schema import Recipe
from ftk.runs.alone import Alone
from ftk.runs.follow_step import make_states, take_weights, watched
from ftk.runs.tuned_model import StartModel, TunedModel, frozen_dtype, tune
from ftk.train.precision import FROZEN_DTYPES, Precision
from ftk.train.shard import decoder_layers
from ftk.train.step import Step

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch._subclasses.fake_tensor import FakeTensorMode

_CPU = torch.device("cpu")
GPU_NOTES = (
    "simulated without a GPU: attention allocates as flash attention does, and every tensor in blocks of 512 bytes",
    "what the allocator reserves beyond tensors, in segments of 2 MiB and more, is not simulated",
)
"""What stands for CUDA, which a CPU build of torch cannot imagine."""
GPU_INT8_NOTE = (
    "int8 weights multiply as integers, as on a GPU; input columns with outliers, kept in 16 bits, are left out"
)


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a step held at its peak."""

    bytes: MemoryBytes
    moment: str
    """When in the step that was."""
    parameters: int
    trainable_parameters: int
    notes: tuple[str, ...]


def simulate_step(
    recipe: Recipe,
    config: Any,
    micro_batches: Sequence[Batch],
    *,
    precision: Precision,
    device: Literal["cuda", "cpu"] = "cpu",
    device_bytes: int | None = None,
) -> Simulated:
    """The peak of a training step that is not the first, so that the optimizer has its states.

    Nothing is read but the configuration, and the memory taken is that of the batches and their masks.

    Args:
        recipe: what would be trained, and how.
        config: the transformers configuration of its model.
        micro_batches: of the step, with real token ids.
        precision: in which it computes, resolved.
        device: on which it would run.
        device_bytes: that device's memory, on which the size of the loss's chunks depends; None for 80 GiB.

    Raises:
        FtkError: the model cannot be built or tuned so, or its shapes depend on its numbers.
    """
    budget = Budget.for_memory(device, device_bytes or UNKNOWN_GPU, int(config.get_text_config().vocab_size))
    simulation = _Simulation(recipe, micro_batches, precision, budget, device)
    with _told_apart(config):
        whole = _on_meta(recipe, config)
        lengths = short_lengths(kinds_of(decoder_layers(whole), config))
        if lengths is None or len(decoder_layers(whole)) != config.get_text_config().num_hidden_layers:
            return _answer([simulation.run(config)], 0)
        runs = [simulation.run(shortened(config, length)) for length in lengths]
        each = lengths[1] - lengths[0]
        return _answer(runs, (len(decoder_layers(whole)) - lengths[0]) // each)


@dataclass(frozen=True, slots=True)
class _Run:
    """What came of the step of a model."""

    peaks: Mapping[str, Peak]
    parameters: int
    trainable_parameters: int
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Simulation:
    """One step, of a model as long as it is asked for."""

    recipe: Recipe
    micro_batches: Sequence[Batch]
    precision: Precision
    budget: Budget
    device: Literal["cuda", "cpu"]

    def run(self, config: Any) -> _Run:
        recipe = self.recipe
        fake = imagining()
        alone = Alone(self.precision)
        with_bitsandbytes = recipe.quantization is not None or recipe.training.optimizer.name == "adamw_8bit"
        imagine = Imagine(fake, substitutes(self.device, with_bitsandbytes=with_bitsandbytes))
        model = _built(recipe, config, self.precision, fake)
        base = set(model.parameters())
        with imagine, movable():
            start = StartModel(ModelPlace(recipe.model.id, Path(), recipe.model.id), model)
            tuned = tune(start, recipe, cast("Accelerator", alone), budget=self.budget, has_numbers=False)
            scoring = alone.prepare(tuned.scoring).train()
        optimizer = recipe.training.optimizer.build(
            scoring.named_parameters(),
            learning_rate=recipe.training.learning_rate,
            weight_decay=recipe.training.weight_decay,
        )
        if self.device == "cuda":
            _update_together(optimizer)
        follow = Follow(_in_cuda_blocks if self.device == "cuda" else int)
        take_weights(follow, scoring, base, self.micro_batches)
        with watched(follow, tuned, optimizer, alone), self._kernels(), follow, imagine:
            make_states(optimizer, follow)
            gc.collect()
            follow.restart()
            step = Step(
                model=scoring,
                objective=recipe.task.objective(router_loss_weight=tuned.router_loss_weight),
                optimizer=optimizer,
                accelerator=cast("Accelerator", alone),
                max_grad_norm=recipe.training.max_grad_norm,
            )
            step(list(self.micro_batches), learning_rate=recipe.training.learning_rate)
        return _Run(follow.peaks, tuned.num_parameters, tuned.num_trained, tuple(self._notes(tuned)))

    def _kernels(self) -> ExitStack:
        """What stands for CUDA's own."""
        kernels = ExitStack()
        if self.device == "cuda":
            kernels.enter_context(gpu_autocast())
            kernels.enter_context(gpu_attention(masks=not self.recipe.model.attention.startswith("flash")))
        if self.device == "cuda" and self._has_eight_bits:
            kernels.enter_context(gpu_product())
        return kernels

    def _notes(self, tuned: TunedModel) -> Iterator[str]:
        if self.recipe.data.packing:
            yield "that documents of a packed row are kept apart is taken for granted; training proves it as it starts"
        if tuned.scoring.head_note is not None:
            yield tuned.scoring.head_note
        yield from GPU_NOTES if self.device == "cuda" else ()
        if self.device == "cuda" and self._has_eight_bits:
            yield GPU_INT8_NOTE

    @property
    def _has_eight_bits(self) -> bool:
        return self.recipe.quantization is not None and self.recipe.quantization.name == "int8"


def _answer(runs: Sequence[_Run], periods: int) -> Simulated:
    """What a run says, or two of models that are shorter by `periods` and by one less."""
    first, last = runs[0], runs[-1]
    peak = max(prolonged(first.peaks, last.peaks, periods=periods), key=lambda one: one.total)
    return Simulated(
        bytes=_by_kind(peak),
        moment=peak.moment,
        parameters=first.parameters + periods * (last.parameters - first.parameters),
        trainable_parameters=first.trainable_parameters
        + periods * (last.trainable_parameters - first.trainable_parameters),
        notes=first.notes,
    )


def _update_together(optimizer: torch.optim.Optimizer) -> None:
    """Parameters are updated all at once, as torch does by itself on CUDA where no kernel is fused."""
    for group in optimizer.param_groups:
        if "foreach" in group and not group.get("fused"):
            group["foreach"] = True


def _in_cuda_blocks(num_bytes: int) -> int:
    return -(-num_bytes // CUDA_BLOCK) * CUDA_BLOCK


def _on_meta(recipe: Recipe, config: Any) -> nn.Module:
    """The whole model as shapes alone."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    with torch.device("meta"), no_init_weights():
        model: nn.Module = AutoModelForCausalLM.from_config(config, trust_remote_code=recipe.model.trust_remote_code)
    return model


def _built(recipe: Recipe, config: Any, precision: Precision, fake: "FakeTensorMode") -> Any:
    """The model as it would be loaded, its weights imagined."""
    from transformers import AutoModelForCausalLM
    from transformers.initialization import no_init_weights

    dtype = frozen_dtype(recipe, precision)
    attention = None if recipe.model.attention in ("auto", "flash_attention_2") else recipe.model.attention
    with fake, no_init_weights():
        model = AutoModelForCausalLM.from_config(
            config,
            dtype=dtype,
            attn_implementation=attention,
            trust_remote_code=recipe.model.trust_remote_code,
        )
        model.tie_weights()
    if recipe.quantization is not None:
        quantize_imagined(model, recipe.quantization.loading_config(FROZEN_DTYPES[precision]), fake, dtype=dtype)
    return model


@contextmanager
def _told_apart(config: Any) -> Iterator[None]:
    """What torch says of models whose shapes depend on numbers becomes one message."""
    from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException

    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise ModelError(
            f"a {config.model_type} model cannot be simulated: the shapes in it depend on its numbers ({error}). Leave "
            "out --simulate for the analytic estimate"
        ) from error


def _by_kind(peak: Peak) -> MemoryBytes:
    of = peak.by_kind
    return MemoryBytes(
        weights=of.get("weights", 0),
        adapter=of.get("adapter", 0),
        gradients=of.get("gradients", 0),
        optimizer=of.get("optimizer", 0),
        activations=of.get("activations", 0),
        logits=of.get("logits", 0),
        overhead=of.get("other", 0),
    )
