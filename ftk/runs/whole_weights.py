"""What each process needs the whole model for, though it is trained in shards."""

import torch

from ftk.memory.estimate import Estimate
from ftk.memory.units import shown
from ftk.recipe.schema import Recipe


def used_before_shards(recipe: Recipe) -> str | None:
    """What computes with the whole model on its device before that is sharded; None where nothing does.

    Flash attention knows GPUs alone, where it must be proven to keep documents apart.
    """
    if recipe.task.needs_reference:
        return f"the reference of task: {recipe.task.name}"
    attention = recipe.model.attention
    return f"the proof of model.attention: {attention}" if attention.startswith("flash") else None


def asked_apart(recipe: Recipe) -> tuple[str, ...]:
    """How to leave out what calls the model differently often on each process, for which each gathers all weights.

    Losses do not. Holes of infilling are there where metrics are.
    """
    settings = recipe.evaluation
    found = {
        "evaluation.metrics=[]": bool(settings.metrics and recipe.data.eval),
        "evaluation.bias=null": settings.bias is not None,
        "evaluation.passkey=null": settings.passkey is not None,
    }
    return tuple(without for without, is_asked in found.items() if is_asked)


def gathered_bytes(answer: Estimate) -> int:
    """What a device holds at least while all weights are gathered: them, its shards, and states of the optimizer."""
    own = answer.per_device.bytes
    return answer.training.weights + answer.training.adapter + own.weights + own.adapter + own.optimizer


def whole_refusal(recipe: Recipe, answer: Estimate, device: torch.device, free: int | None) -> str | None:
    """Why a run in shards cannot be where a GPU must hold the whole model, and what to do; None where it can."""
    each = answer.per_device
    if free is None or device.type == "cpu" or each.processes == 1 or not recipe.parallel.shards:
        return None
    first, without = used_before_shards(recipe), asked_apart(recipe)
    whole = answer.training.weights + answer.training.adapter
    if first is not None and whole > free:
        other = (
            "Take a loss without a reference, or a GPU with more memory"
            if recipe.task.needs_reference
            else "Take model.attention=sdpa, or a GPU with more memory"
        )
        return (
            f"the run cannot fit: {first} needs the whole model on each GPU before it is sharded, {shown(whole)}, and "
            f"{shown(free)} are free. {other}; tuning=lora quantization=nf4 parallel.strategy=ddp keeps weights "
            "of four bits"
        )
    if without and gathered_bytes(answer) > free:
        names = " and ".join(words.split("=")[0] for words in without)
        return (
            f"the run cannot fit: {names} gathers the whole model on each GPU, beside what that holds in shards, "
            f"{shown(gathered_bytes(answer))}, and {shown(free)} are free. Take {' '.join(without)} and measure the "
            "model afterwards by ftk eval on a GPU that holds it; tuning=lora quantization=nf4 parallel.strategy=ddp "
            "keeps weights of four bits"
        )
    return None
