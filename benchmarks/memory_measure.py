"""How memory.py measures a step: the real parts of `ftk train`, and the allocator's own account of them."""

import gc
from collections.abc import Sequence
from dataclasses import fields

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from ftk.core.types import Batch
from ftk.memory.quantized import quantized_constants
from ftk.recipe.schema import Recipe
from ftk.runs.tuned_model import load_start, tune
from ftk.train.group import join_group
from ftk.train.shard import spread, unwrapped
from ftk.train.step import Step


def build_step(recipe: Recipe) -> tuple[Step, nn.Module]:
    """What `ftk train` makes of a recipe, up to the step."""
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    accelerator = join_group(recipe.training.precision)
    tuned = tune(load_start(recipe, accelerator), recipe, accelerator)
    model = spread(tuned.scoring, accelerator, strategy="ddp").train()
    optimizer = recipe.training.optimizer.build(
        unwrapped(model).named_parameters(), learning_rate=recipe.training.learning_rate, weight_decay=0.0
    )
    objective = recipe.task.objective(router_loss_weight=tuned.router_loss_weight)
    step = Step(model=model, objective=objective, optimizer=optimizer, accelerator=accelerator, max_grad_norm=1.0)
    return step, model


def measure_cpu(recipe: Recipe, batch: Batch) -> tuple[int, None]:
    """Peak bytes of the second step, from the allocator's own events."""
    step, model = build_step(recipe)
    before = _bytes_of([*model.parameters(), *model.buffers(), *quantized_constants(model), *_tensors(batch)])
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step([batch], learning_rate=1e-4)
        with record_function("second step"):
            step([batch], learning_rate=1e-4)
    events = list(profiler.profiler.kineto_results.events())
    start = next(event.start_ns() for event in events if event.name() == "second step")
    held = peak = 0
    for event in sorted((one for one in events if one.name() == "[memory]"), key=lambda one: one.start_ns()):
        held += event.nbytes()
        if event.start_ns() >= start:
            peak = max(peak, held)
    return before + peak, None


def measure_cuda(recipe: Recipe, batch: Batch) -> tuple[int, int]:
    """Peak bytes that torch had allocated, and that it had reserved, in the second step."""
    step, _ = build_step(recipe)
    step([batch], learning_rate=1e-4)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    step([batch], learning_rate=1e-4)
    measured = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    del step, _
    gc.collect()
    torch.cuda.empty_cache()
    return measured


def _bytes_of(tensors: Sequence[Tensor]) -> int:
    """Each memory once. Weights on a CPU may be parts of one mapped file: their own sizes count."""
    return sum({tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors}.values())


def _tensors(batch: Batch) -> list[Tensor]:
    values = (getattr(batch, field.name) for field in fields(batch))
    return [value for value in values if isinstance(value, Tensor)]
