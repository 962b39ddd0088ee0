"""Log-probabilities of tokens from the output head, chunk by chunk, so that no full matrix of logits ever exists.

The head is called as a module: an adapter beside it, a bias, quantized, tied or sharded weights all take part.

Shapes: T tokens, C tokens of a chunk, D width, V vocabulary.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


class HeadScores(NamedTuple):
    """What the head says of tokens."""

    logps_T: Tensor
    """float32, nats (float64 from float64 logits)."""
    correct_T: Tensor
    """bool: the target was the most probable token."""


@dataclass(frozen=True)
class LogitTransform:
    """What an architecture does to logits after its head."""

    scale: float = 1.0
    """Factor on the logits, as Cohere has it, or the inverse of Granite's divisor."""
    soft_cap: float | None = None
    """Logits bend towards this bound: cap * tanh(logits / cap), as Gemma 2 has it (arXiv:2408.00118, section 2)."""

    def __call__(self, logits: Tensor) -> Tensor:
        if self.scale != 1.0:
            logits = logits * self.scale
        if self.soft_cap is not None:
            # In float32, where half precision would be coarse near the bound.
            logits = torch.tanh(logits.to(_accumulated(logits)) / self.soft_cap) * self.soft_cap
        return logits


@dataclass(frozen=True)
class Budget:
    """How much memory logits may take."""

    chunk_tokens: int
    """Tokens whose logits exist at once."""
    kept_bytes: int
    """Logits up to this size are kept for the backward pass; larger ones are computed again there."""

    @classmethod
    def of(cls, device: torch.device, vocabulary_size: int) -> "Budget":
        """What suits a device.

        On a CPU, chunks of 16 MB are served by the heap without page faults, 8% faster than one block at a vocabulary
        of 8,192; below 256 tokens, adding up the head's gradient costs more than that.
        """
        total_bytes = torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else 0
        return cls.for_memory(device.type, total_bytes, vocabulary_size)

    @classmethod
    def for_memory(cls, device_type: str, total_bytes: int, vocabulary_size: int) -> "Budget":
        """What suits a kind of device with so much memory; on a CPU that plays no part."""
        token_bytes = 4 * vocabulary_size
        if device_type == "cuda":
            return cls(chunk_tokens=max(1024, 2**29 // token_bytes), kept_bytes=total_bytes // 16)
        return cls(chunk_tokens=max(256, 2**24 // token_bytes), kept_bytes=2**27)

    @classmethod
    def of_chunk(cls, chunk_tokens: int, vocabulary_size: int) -> "Budget":
        """No more than so many tokens' logits at any time."""
        return cls(chunk_tokens=chunk_tokens, kept_bytes=4 * vocabulary_size * chunk_tokens)


def reference_scores(logits_TV: Tensor, targets_T: Tensor) -> HeadScores:
    """The definition, on a full matrix of logits: what every faster path is tested against."""
    logps_TV = torch.log_softmax(logits_TV.to(_accumulated(logits_TV)), dim=-1)
    logps_T = logps_TV.gather(1, targets_T[:, None]).squeeze(1)
    return HeadScores(logps_T, logits_TV.detach().argmax(dim=-1) == targets_T)


def token_scores(
    head: nn.Module,
    hidden_TD: Tensor,
    targets_T: Tensor,
    *,
    vocabulary_size: int,
    transform: LogitTransform | None = None,
    budget: Budget | None = None,
) -> HeadScores:
    """Log-probability of each target, and whether it was the most probable token, in float32.

    Gradients reach `hidden_TD` and the head's parameters. How they do depends on what is trained:
    - a frozen head: the gradient of each log-probability to its hidden state is taken at once, chunk by chunk, and
      only [T, D] is kept. That costs no product more than keeping the logits would;
    - a trained head whose logits are small: probabilities are kept;
    - a trained head whose logits are large: the chunk is computed again in the backward pass, a third more work.

    A head that is sharded by itself is called once, on all tokens: each call would gather its weights, and processes
    whose batches differ would wait for each other forever. Shard the module around it instead.
    """
    score = _Score(head, transform or LogitTransform())
    if _gathers_itself(head):
        return score(hidden_TD, targets_T)
    budget = budget or Budget.of(hidden_TD.device, vocabulary_size)
    function: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = score
    if torch.is_grad_enabled():
        # float16 needs the loss scale, which only the backward pass brings.
        if not any(p.requires_grad for p in head.parameters()) and _computed(hidden_TD) != torch.float16:
            function = partial(_FrozenHead.apply, score)
        elif targets_T.numel() * vocabulary_size * 4 > budget.kept_bytes:
            function = partial(checkpoint, score, use_reentrant=False)
    chunks = zip(torch.split(hidden_TD, budget.chunk_tokens), torch.split(targets_T, budget.chunk_tokens), strict=True)
    with _casting_once(hidden_TD.device.type):
        logps, correct = zip(*(function(*chunk) for chunk in chunks), strict=True)
    return HeadScores(torch.cat(logps), torch.cat(correct))


def _casting_once(kind: str) -> AbstractContextManager[object]:
    """Within, autocast casts the head's weight once for all chunks, also where it keeps no casts of other weights."""
    if not torch.is_autocast_enabled(kind) or torch.is_autocast_cache_enabled():
        return nullcontext()
    return torch.autocast(kind, dtype=torch.get_autocast_dtype(kind), cache_enabled=True)


def _gathers_itself(head: nn.Module) -> bool:
    if not torch.distributed.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(module, FSDPModule) for module in head.modules())


@dataclass(frozen=True)
class _Score:
    """The head and the formula on one chunk."""

    head: nn.Module
    transform: LogitTransform

    def __call__(self, hidden_CD: Tensor, targets_C: Tensor) -> HeadScores:
        logits_CV = self.transform(self.head(hidden_CD))
        return HeadScores(*_TargetLogps.apply(logits_CV, targets_C))  # type: ignore[no-untyped-call]


class _TargetLogps(torch.autograd.Function):
    """Log-probability of targets from logits; float32 logits are overwritten by what the backward pass needs.

    The gradient to logits is (one-hot - softmax) times that of the log-probability. Exponentials are taken once, and
    no second matrix is made. Whoever else had saved the logits for its own backward pass gets torch's error.
    """

    @staticmethod
    def forward(ctx: Any, logits_CV: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
        dtype = _accumulated(logits_CV)
        target_logits_C = logits_CV.gather(1, targets_C[:, None]).squeeze(1).to(dtype)
        largest_C, best_C = logits_CV.max(dim=-1)
        largest_C = largest_C.to(dtype)
        exps_CV = logits_CV.to(dtype).sub_(largest_C[:, None]).exp_()
        sums_C = exps_CV.sum(dim=-1)
        correct_C = best_C == targets_C
        ctx.mark_non_differentiable(correct_C)
        # Logits of half precision are untouched, and half the size of their exponentials.
        ctx.save_for_backward(logits_CV, largest_C, sums_C, targets_C)
        return target_logits_C - largest_C - sums_C.log(), correct_C

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        kept_CV, largest_C, sums_C, targets_C = ctx.saved_tensors
        gradient_C = gradients[0]
        is_exps = kept_CV.dtype == sums_C.dtype
        exps_CV = kept_CV if is_exps else kept_CV.to(sums_C.dtype).sub_(largest_C[:, None]).exp_()
        gradient_CV = exps_CV.mul_((-gradient_C / sums_C)[:, None])
        gradient_CV.scatter_add_(1, targets_C[:, None], gradient_C[:, None])
        return gradient_CV.to(kept_CV.dtype), None


class _FrozenHead(torch.autograd.Function):
    """The same with gradients to the hidden states alone, taken while the logits of the chunk are at hand."""

    @staticmethod
    def forward(ctx: Any, score: _Score, hidden_CD: Tensor, targets_C: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf_CD = hidden_CD.detach().requires_grad_()
            logps_C, correct_C = score(leaf_CD, targets_C)
        (slopes_CD,) = torch.autograd.grad(logps_C, leaf_CD, torch.ones_like(logps_C))
        ctx.mark_non_differentiable(correct_C)
        ctx.save_for_backward(slopes_CD)
        return logps_C.detach(), correct_C

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None]:
        (slopes_CD,) = ctx.saved_tensors
        return None, (slopes_CD * gradients[0][:, None]).to(slopes_CD.dtype), None


def _computed(hidden: Tensor) -> torch.dtype:
    """The type in which the head multiplies: autocast's, where that is on, whatever the type of its input."""
    kind = hidden.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype


def _accumulated(logits: Tensor) -> torch.dtype:
    """float32 for half precision; float64 stays."""
    return torch.promote_types(logits.dtype, torch.float32)
