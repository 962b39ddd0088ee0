"""How the routers of a mixture of experts begin: from the base's states at prompts, from embeddings, or drawn.

Shapes: L layers, E experts, B prompts, T tokens, D width.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from ftk.core.errors import ModelError
from ftk.merging.mixture import PROMPTED, Expert, Mixture
from ftk.merging.moe import alike_layers, hidden_router, prompt_states, random_router, uniform_router
from ftk.merging.moe_plan import Mixing
from ftk.models.load import load_model, load_tokenizer, max_positions
from ftk.models.settings import ModelSettings
from ftk.runs.merging.sources import MergeSource
from ftk.runs.quiet import quieten
from ftk.train.group import best_device

States = Callable[[Sequence[str]], Tensor]
"""Prompts to a state a layer, [L, D]."""


def mixing(mixture: Mixture, base: MergeSource, *, width: int) -> tuple[Mixing, list[str]]:
    """What makes the mixture's tensors, and warnings. Loads the base where routers are made of its states.

    Raises:
        ModelError: the base or its tokenizer cannot be loaded, or a prompt has no tokens or too many.
    """
    num_layers, shared = base.model.num_layers, None
    warnings = _copies(mixture)
    if mixture.gate_mode in PROMPTED:
        states = _embedded(base) if mixture.gate_mode == "cheap_embed" else _listened(mixture, base)
        routers = _router(mixture.experts, states)
        shared = _router(mixture.shared, states) if mixture.shared else None
        alike = alike_layers(routers)
        if alike:
            warnings.append(
                f"the routers of {len(alike)} of {num_layers} layers ({', '.join(map(str, alike))}) are so alike for "
                "all experts that some will hardly be chosen: the prompts of the experts are too similar"
            )
        return Mixing(routers, shared), warnings
    generator = torch.Generator().manual_seed(mixture.seed)
    draw = random_router if mixture.gate_mode == "random" else uniform_router
    routers = draw(num_layers, len(mixture.experts), width, generator=generator)
    if mixture.shared:
        shared = draw(num_layers, len(mixture.shared), width, generator=generator)
    return Mixing(routers, shared), warnings


def _copies(mixture: Mixture) -> list[str]:
    """A warning where all experts are one model's and nothing makes them differ."""
    models = {one.model for one in mixture.experts}
    if len(models) > 1 or len(mixture.experts) == 1 or any(one.noise_scale for one in mixture.experts):
        return []
    return [
        f"all experts are copies of {mixture.experts[0].model}, so that the mixture answers as one of them does until "
        "it is trained. noise_scale makes them differ"
    ]


def _router(experts: Sequence[Expert], states: States) -> Tensor:
    positive_ELD = torch.stack([states(one.positive) for one in experts])
    negative_ELD = torch.stack(
        [states(one.negative) if one.negative else torch.zeros_like(positive_ELD[0]) for one in experts]
    )
    return hidden_router(positive_ELD, negative_ELD)


def _listened(mixture: Mixture, base: MergeSource) -> States:
    """The base's states as each layer receives them."""
    quieten()
    settings = ModelSettings(id=str(base.folder))
    tokenizer = load_tokenizer(settings)
    dtype = base.model.spec(str(base.model.embedding)).dtype if base.model.embedding else torch.float32
    model: Any = load_model(settings, dtype=dtype, device=best_device()).eval()
    positions = max_positions(model.config)
    pooled: Literal["last", "mean"] = "mean" if mixture.gate_mode == "hidden_avg" else "last"

    @torch.no_grad()
    def states(prompts: Sequence[str]) -> Tensor:
        # One at a time, so that nothing is padded.
        found: list[Tensor] = []
        for prompt in prompts:
            ids_1T = _ids(tokenizer, prompt, positions).unsqueeze(0).to(model.device)
            output = model(ids_1T, output_hidden_states=True, use_cache=False)
            hidden_L1TD = torch.stack(output.hidden_states[:-1])
            found.append(prompt_states(hidden_L1TD, torch.ones_like(ids_1T), pooled=pooled).cpu())
        return torch.stack(found).mean(0)

    return states


def _embedded(base: MergeSource) -> States:
    """The direction of the sum of the embeddings of all tokens, the same for every layer; needs no model.

    Source: mergekit's documentation of mergekit-moe, "cheap_embed".
    """
    tokenizer = load_tokenizer(ModelSettings(id=str(base.folder)))
    if base.model.embedding is None:
        raise ModelError(f"{base.model.name} has no embeddings under a name that ftk knows. Use gate_mode: hidden")
    embedding_VD = base.model.checkpoint.read(base.model.embedding)

    def states(prompts: Sequence[str]) -> Tensor:
        ids_T = torch.cat([_ids(tokenizer, prompt, None) for prompt in prompts])
        sum_D = embedding_VD[ids_T].float().sum(0)
        state_D: Tensor = sum_D / sum_D.norm().clamp_min(1e-8)
        return state_D.expand(base.model.num_layers, -1)

    return states


def _ids(tokenizer: Any, prompt: str, positions: int | None) -> Tensor:
    """Tokens of a prompt after the token at which texts begin, where the tokenizer has one."""
    ids = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    if tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    if not ids or (positions is not None and len(ids) > positions):
        expected = f"1 to {positions}" if positions is not None else "at least 1"
        raise ModelError(f"the prompt {prompt[:60]!r} has {len(ids)} tokens, expected {expected}")
    return torch.tensor(ids, dtype=torch.int64)
