"""Weights in shards give the losses and gradients of whole ones: two processes over gloo."""

from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from families import batch_of, documents, model_of
from torch import Tensor, nn

from ftk.core.types import Batch
from ftk.models.scoring import ScoringModel
from ftk.numerics.head import Budget

DOCUMENTS = documents(12, 5, 9, 3)
SHARES = ([[DOCUMENTS[0], DOCUMENTS[3]]], [[DOCUMENTS[1]], [DOCUMENTS[2]]])
"""What each process gets: as many tokens to score on none as on the other."""
WAYS = ("head recomputed", "head by itself", "frozen head")


def build(way: str) -> nn.Module:
    causal_lm = model_of("llama")
    causal_lm.lm_head.requires_grad_(way != "frozen head")
    return ScoringModel(causal_lm, budget=Budget(chunk_tokens=4, kept_bytes=0))


def loss_of(model: nn.Module, batch: Batch) -> Tensor:
    scores = model(batch)
    return -(scores.logps_BL * batch.weights_BL).sum()


def shard_and_score(rank: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import DTensor

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for way in WAYS:
        model: Any = build(way)
        for layer in model.causal_lm.model.layers:
            fully_shard(layer)
        if way == "head by itself":
            fully_shard(model.causal_lm.lm_head)
        fully_shard(model)
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
        loss = loss_of(model, batch_of(SHARES[rank]))
        # Processes average gradients: multiplied back to a sum.
        (loss * 2).backward()
        gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters() if p.grad is not None}
        torch.save({"loss": loss.detach(), "gradients": gradients}, f"{folder}/{way}-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_sharded_head_gives_losses_and_gradients_of_one_process(tmp_path: Path) -> None:
    mp.spawn(shard_and_score, args=(str(tmp_path),), nprocs=2)
    for way in WAYS:
        model = build(way)
        losses = [loss_of(model, batch_of(share)) for share in SHARES]
        torch.stack(losses).sum().backward()
        expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        for rank in (0, 1):
            found = torch.load(tmp_path / f"{way}-{rank}.pt")
            torch.testing.assert_close(found["loss"], losses[rank].detach(), rtol=1e-6, atol=0)
            assert found["gradients"].keys() == expected.keys()
            for name, gradient in found["gradients"].items():
                assert (gradient - expected[name]).norm() <= 2e-6 * expected[name].norm(), (way, name)
