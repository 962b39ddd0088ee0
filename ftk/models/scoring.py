"""A causal language model that scores the tokens of a batch within its own forward.

Shapes: B rows, L positions, N = B * L, R rows and M positions that the backbone sees, T scored tokens, D width,
V vocabulary, E experts.
"""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ftk.core.errors import ModelError
from ftk.core.positions import rope_parts
from ftk.core.types import Batch, TokenScores
from ftk.models.arrange import Arrangement, as_given, as_trees, end_to_end, one_text_a_row, with_padding_apart
from ftk.models.proof import attention_mask, narrowest_window, prove_head, prove_packing, prove_trees
from ftk.models.router import router_load
from ftk.numerics.head import Budget, HeadScores, reference_scores, token_scores

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ScoringModel(nn.Module):
    """The module that is trained, sharded and saved; `causal_lm` is what was given, adapters included.

    Calling the head outside the forward of the module that was wrapped for data parallelism would bypass gradient
    exchange and autocast and meet sharded weights in pieces: hence a wrapper, whose forward is all there is.
    """

    def __init__(
        self,
        causal_lm: nn.Module,
        *,
        budget: Budget | None = None,
        router: bool = False,
        trees: bool = False,
        has_numbers: bool = True,
    ) -> None:
        """Prove on a short row how the model's logits come about. Weights must be on their device.

        Args:
            causal_lm: a transformers model for causal language modelling, or such a model with PEFT adapters in it.
            budget: how much memory logits may take; by default what suits the device.
            router: whether scores tell what the routers of a mixture of experts did.
            trees: whether batches will have several completions of a prompt, and it is worth proving that the model
                can share the prompt's computation. Without it they are scored all the same, each with its prompt.
            has_numbers: False for imagined weights, on which nothing can be proven that depends on numbers: the model
                is taken to keep documents and completions of a row apart.
        """
        super().__init__()
        self.causal_lm = causal_lm
        self.head_note: str | None = None
        """Why the model's own forward with full logits is used, slower and larger; None where it is not."""
        self.packing_note: str | None = None
        """Why documents of packed batches are run in rows of their own; None where they are not."""
        self.tree_note: str | None = None
        """Why completions of one prompt do not share its computation; None where they do, or none were announced."""
        self._budget = budget
        self._router = router
        base = base_model(causal_lm)
        self._head_path, reason = prove_head(causal_lm, base)
        name = type(base).__name__
        if reason is not None:
            self.head_note = f"{name} computes full logits by its own forward, which takes more memory: {reason}"
        self._has_numbers = has_numbers
        self._packs = self._head_path is not None and (
            not has_numbers or prove_packing(base, causal_lm.get_submodule(self._head_path.backbone))
        )
        if not self._packs:
            self.packing_note = (
                f"{name} does not keep documents in one row apart: those of packed batches are run in rows of their own"
            )
        parts = rope_parts(self._config).values()
        self._counts_lengths = any(part.get("rope_type") == "dynamic" for part in parts)
        self._tree_width = self._widest_tree() if trees else 0

    def forward(self, batch: Batch) -> TokenScores:
        """Log-probability and correctness of every token with a weight, and the routers' load where it was asked for.

        Raises:
            ValueError: a document's first token has a weight, though nothing comes before it.
            ModelError: the routers' load was asked for, and the model does not tell it.
        """
        targets_T = _scored(batch)
        # A batch without weights still has to touch every trained weight, or data parallelism waits for gradients.
        is_empty = len(targets_T) == 0
        if is_empty:
            targets_T = torch.ones(1, dtype=torch.long, device=targets_T.device)
        arrangement = self._arrange(batch)
        if self._counts_lengths:
            arrangement = with_padding_apart(arrangement)
        predictors_T = arrangement.predictors_N[targets_T]
        token_ids_T = batch.input_ids_BL.flatten()[targets_T]
        scores, router_logits = self._score(arrangement, predictors_T, token_ids_T)
        shape = batch.input_ids_BL.shape
        logps_N = torch.zeros(shape.numel(), dtype=scores.logps_T.dtype, device=targets_T.device)
        correct_N = torch.zeros_like(logps_N, dtype=torch.bool)
        logps_T = scores.logps_T * 0 if is_empty else scores.logps_T
        correct_T = scores.correct_T & (not is_empty)
        return TokenScores(
            logps_BL=logps_N.index_copy(0, targets_T, logps_T).view(shape),
            correct_BL=correct_N.index_copy(0, targets_T, correct_T).view(shape),
            router=self._load(router_logits, arrangement) if self._router else None,
        )

    @property
    def backbone(self) -> nn.Module | None:
        """The layers beneath the head; None where the model's own forward is called instead."""
        return self.causal_lm.get_submodule(self._head_path.backbone) if self._head_path is not None else None

    def _arrange(self, batch: Batch) -> Arrangement:
        if not self._packs:
            return one_text_a_row(batch)
        if "flash" in self._config._attn_implementation:
            return end_to_end(batch)
        if batch.branches_BL is None:
            return as_given(batch)
        return as_trees(batch) if batch.input_ids_BL.shape[1] <= self._tree_width else one_text_a_row(batch)

    def _widest_tree(self) -> int:
        """Tokens of the widest row in which completions may share a prompt; 0 where they never may."""
        base = base_model(self.causal_lm)
        backbone = self.backbone
        width, reason = 0, "its attention looks no further back"
        if self._packs and backbone is not None and (not self._has_numbers or prove_trees(base, backbone)):
            # A mask of ours replaces a window's, which makes no difference where all of the row lies within it.
            width = narrowest_window(self._config)
        if self._counts_lengths and width > (trained := int(self._config.max_position_embeddings)):
            # Beyond those, completions of different lengths would each turn the prompt otherwise.
            width, reason = trained, "its positions depend on the length of each text"
        if width < sys.maxsize:
            here = f" in rows of more than {width} tokens, as {reason}" if width else ""
            self.tree_note = (
                f"{type(base).__name__} does not take completions that share a prompt{here}: each is run with the "
                "prompt in a row of its own"
            )
        return width

    def _score(
        self, arrangement: Arrangement, predictors_T: Tensor, token_ids_T: Tensor
    ) -> tuple[HeadScores, Sequence[Tensor | None] | None]:
        path = self._head_path
        arguments: dict[str, Any] = {"input_ids": arrangement.input_ids_RM, "use_cache": False}
        if arrangement.position_ids_RM is not None:
            arguments["position_ids"] = arrangement.position_ids_RM
        if arrangement.sees_R1MM is not None:
            arguments["attention_mask"] = attention_mask(arrangement.sees_R1MM, base_model(self.causal_lm))
        if self._router:
            arguments["output_router_logits"] = True
        if path is None:
            # Unknown architectures may look at the mask for more than attention.
            arguments["attention_mask"] = arrangement.real_RM.long()
            outputs = self.causal_lm(**arguments)
            logits_TV = outputs.logits.flatten(0, 1)[predictors_T]
            scores = reference_scores(logits_TV, token_ids_T)
        else:
            outputs = self.causal_lm.get_submodule(path.backbone)(**arguments)
            hidden_TD = outputs.last_hidden_state.flatten(0, 1)[predictors_T]
            scores = token_scores(
                self.causal_lm.get_submodule(path.head),
                hidden_TD,
                token_ids_T,
                vocabulary_size=path.vocabulary_size,
                transform=path.transform,
                budget=self._budget,
            )
        return scores, getattr(outputs, "router_logits", None)

    def _load(self, router_logits: Sequence[Tensor | None] | None, arrangement: Arrangement) -> Any:
        if not router_logits:
            raise ModelError(
                f"{type(base_model(self.causal_lm)).__name__} does not tell what its routers do, so it cannot be "
                "trained with a router loss. Set output_router_logits to false in its config.json"
            )
        return router_load(
            router_logits, arrangement.counted_RM.flatten(), num_chosen=int(self._config.num_experts_per_tok)
        )

    @property
    def _config(self) -> Any:
        return base_model(self.causal_lm).config.get_text_config()


def base_model(causal_lm: Any) -> "PreTrainedModel":
    """The transformers model inside PEFT's wrapper, or the model itself."""
    from transformers import PreTrainedModel

    # Not by PEFT's class: importing PEFT takes two seconds, which full tuning need not wait for.
    return causal_lm if isinstance(causal_lm, PreTrainedModel) else causal_lm.get_base_model()


def _scored(batch: Batch) -> Tensor:
    """Indices of the tokens with a weight in the flattened batch, shape [T]."""
    targets_T = (batch.weights_BL.flatten() > 0).nonzero().squeeze(1)
    if (batch.position_ids_BL.flatten()[targets_T] == 0).any():
        raise ValueError("the first token of a document has a weight, though nothing comes before it")
    return targets_T
