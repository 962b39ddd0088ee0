"""A small model for the tests of the loop, an objective that takes a baseline over all batches, and a Llama.

Shapes: B rows, L positions.
"""

from collections.abc import Mapping, Sequence

import torch
from preference_objectives import VOCABULARY
from torch import Tensor, nn
from torch.nn import functional as F

from ftk.core.types import Batch, Terms, TokenScores


class Block(nn.Module):
    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, hidden: Tensor, visible_BLL: Tensor) -> Tensor:
        normed = self.norm(hidden)
        shares_BLL = visible_BLL.to(hidden.dtype) / visible_BLL.sum(-1, keepdim=True)
        past = shares_BLL @ normed
        return hidden + self.dropout(F.gelu(self.linear(torch.cat([normed, past], -1))))


class StandIn(nn.Module):
    """What the loop sees of a ScoringModel: a batch in, log-probabilities of targets at their own places out."""

    def __init__(self, *, width: int = 16, num_layers: int = 2, dropout: float = 0.0) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Block(width, dropout) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, VOCABULARY, bias=False)

    def forward(self, batch: Batch) -> TokenScores:
        visible_BLL = visible(batch)
        hidden = self.embed_tokens(batch.input_ids_BL)
        for layer in self.layers:
            hidden = layer(hidden, visible_BLL)
        # A token is predicted at the latest place that it sees; the first one of a document by itself, without weight.
        places_L = torch.arange(hidden.shape[1], device=hidden.device)
        before_BLL = visible_BLL & (places_L < places_L[:, None])
        predictors_BL = torch.where(before_BLL, places_L, 0).amax(-1)
        hidden = hidden.gather(1, predictors_BL[..., None].expand_as(hidden))
        logits = self.head(self.norm(hidden))
        targets_BL = batch.input_ids_BL
        logps = F.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), -1)
        logps_BL = logps.gather(-1, targets_BL[..., None])[..., 0]
        taught_BL = batch.weights_BL > 0
        correct_BL = (logits.argmax(-1) == targets_BL) & taught_BL
        # A row of weight 0 must still touch every parameter, hence the product and no selection.
        return TokenScores(torch.where(taught_BL, logps_BL, logps_BL * 0.0), correct_BL)


def visible(batch: Batch) -> Tensor:
    """bool [B, L, L]: what the token at a place sees: itself and before, its document's trunk and its own branch."""
    documents_BL = batch.document_ids_BL
    seen_BLL = (documents_BL[:, :, None] == documents_BL[:, None]).tril()
    if batch.branches_BL is not None:
        branches_BL = batch.branches_BL
        seen_BLL &= (branches_BL[:, None] == 0) | (branches_BL[:, :, None] == branches_BL[:, None])
    return seen_BLL


class Baselined:
    """An objective that needs sums over the whole step: likelihood times its distance from the step's mean."""

    def weights(self, batch: Batch) -> dict[str, float]:
        return {"nll": float((batch.weights_BL > 0).sum())}

    def statistics_batches(self, batch: Batch) -> Sequence[Batch]:
        return (batch,)

    def statistics(self, scores: TokenScores, batch: Batch) -> dict[str, Tensor]:
        return {"sum": scores.logps_BL.sum().detach(), "count": (batch.weights_BL > 0).sum().to(scores.logps_BL)}

    def terms(self, scores: TokenScores, batch: Batch, statistics: Mapping[str, Tensor]) -> Terms:
        mean = statistics["sum"] / statistics["count"]
        return Terms({"nll": ((scores.logps_BL - mean) ** 2 * (batch.weights_BL > 0)).sum()}, {})

    def figures(self, observed: Mapping[str, float]) -> dict[str, float]:
        return {}


def llama(tuning: str) -> nn.Module:
    """The model of a real run: a small Llama with a tied head, trained in full or by LoRA."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from ftk.models.scoring import ScoringModel
    from ftk.tuning.lora import Lora

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    return ScoringModel(Lora(rank=4).apply(model) if tuning == "lora" else model)
