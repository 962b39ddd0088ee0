"""A mixture of experts from dense models: which tensor of the mixture is which tensor of whom, and how routers begin.

Attention, norms and embeddings are the base's; each expert's multilayer perceptron becomes an expert of its layer.

Shapes: L layers, E experts, B prompts, T tokens, D width.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Generator, Tensor

from ftk.merging.method import MergeError

_MLP = re.compile(r"(?P<layer>model\.layers\.(?P<index>\d+)\.)mlp\.(?P<projection>\w+)\.weight")
_LAYER_BIAS = re.compile(r"model\.layers\.\d+\..*\.bias")
_RESIDUAL = "down_proj"
"""The projection that writes to the residual stream."""


@dataclass(frozen=True)
class Layout:
    """How an architecture names its experts and what its configuration must say."""

    model_type: str
    architecture: str
    takes: tuple[str, ...]
    """Model types whose layers are the same but for the experts."""
    block: str
    """The mixture within a layer."""
    projections: Mapping[str, str]
    """From a projection's name in a dense layer to its name in an expert."""
    has_shared: bool = False
    """Whether one more expert sees every token, through a gate of its own."""
    has_bias: bool = False
    """Whether attention projections may have biases."""
    dropped: tuple[str, ...] = ()
    """Entries of the dense configuration that mean nothing here."""
    settings: Mapping[str, Any] = field(default_factory=dict)


_SAME = {name: name for name in ("gate_proj", "up_proj", "down_proj")}
LAYOUTS = (
    Layout(
        model_type="mixtral",
        architecture="MixtralForCausalLM",
        takes=("llama", "mistral"),
        block="block_sparse_moe",
        projections={"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"},
        dropped=("layer_types", "attention_bias", "mlp_bias", "pretraining_tp"),
    ),
    Layout(
        model_type="qwen2_moe",
        architecture="Qwen2MoeForCausalLM",
        takes=("qwen2",),
        block="mlp",
        projections=_SAME,
        has_shared=True,
        has_bias=True,
        settings={"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True, "qkv_bias": True},
    ),
    Layout(
        model_type="qwen3_moe",
        architecture="Qwen3MoeForCausalLM",
        takes=("qwen3",),
        block="mlp",
        projections=_SAME,
        dropped=("layer_types",),
        settings={"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True},
    ),
)


def layout_for(model_types: Iterable[str], *, num_shared: int) -> Layout:
    """The layout that mixes models of these types.

    Raises:
        MergeError: there is none, or the number of shared experts is not the one it has.
    """
    types = sorted(set(model_types))
    found = next((one for one in LAYOUTS if set(types) <= set(one.takes)), None)
    if found is None:
        known = "; ".join(f"{' and '.join(one.takes)} for {one.model_type}" for one in LAYOUTS)
        raise MergeError(
            f"the models are of type {', '.join(types)}, of which no mixture can be made. Expected {known}"
        )
    if num_shared != int(found.has_shared):
        raise MergeError(
            f"{found.model_type} has {'exactly one shared expert' if found.has_shared else 'no shared expert'}, and "
            f"{num_shared} are given. {'Name one under' if found.has_shared else 'Leave out'} shared_experts"
        )
    return found


def moe_config(
    config: Mapping[str, Any], layout: Layout, *, num_experts: int, experts_per_token: int
) -> dict[str, Any]:
    """The mixture's configuration from the base's.

    Args:
        config: with its defaults filled in, as those of the two architectures differ.

    Raises:
        MergeError: there are fewer experts than a token goes to.
    """
    if not 1 <= experts_per_token <= num_experts:
        raise MergeError(
            f"experts_per_token is {experts_per_token}, expected 1 to the number of experts, {num_experts}"
        )
    changed = {key: value for key, value in config.items() if key not in layout.dropped} | dict(layout.settings)
    changed |= {"model_type": layout.model_type, "architectures": [layout.architecture]}
    changed |= {"num_experts_per_tok": experts_per_token, "output_router_logits": False}
    width = config["intermediate_size"]
    if layout.model_type == "mixtral":
        # Llama has no window, and Mixtral none by default; Mistral's is kept.
        return changed | {"num_local_experts": num_experts, "sliding_window": config.get("sliding_window")}
    changed |= {"num_experts": num_experts, "moe_intermediate_size": width}
    return changed | ({"shared_expert_intermediate_size": width} if layout.has_shared else {})


@dataclass(frozen=True)
class MoeTensor:
    """One tensor of the mixture."""

    name: str
    of: Literal["base", "expert", "shared", "router", "shared_router"]
    """Whose it is; routers are made, not copied."""
    source: str | None = None
    """Its name in the model it is copied from."""
    expert: int | None = None
    layer: int | None = None
    is_residual: bool = False
    """Whether it writes to the residual stream, where an expert may be scaled."""


def moe_tensors(names: Sequence[str], layout: Layout, *, num_experts: int) -> Iterator[MoeTensor]:
    """All tensors of the mixture, in the order of the base's.

    Args:
        names: of the base's tensors.

    Raises:
        MergeError: the base has a tensor that the mixture has no place for.
    """
    for name in names:
        match = _MLP.fullmatch(name)
        if match is None or match["projection"] not in layout.projections:
            if ".mlp." in name or (_LAYER_BIAS.fullmatch(name) and not layout.has_bias):
                raise MergeError(f"{layout.model_type} has no place for {name} of the base")
            yield MoeTensor(name, "base", source=name)
            continue
        block, layer, projection = match["layer"] + layout.block, int(match["index"]), match["projection"]
        is_residual = projection == _RESIDUAL
        for expert in range(num_experts):
            yield MoeTensor(
                f"{block}.experts.{expert}.{layout.projections[projection]}.weight",
                "expert",
                source=name,
                expert=expert,
                layer=layer,
                is_residual=is_residual,
            )
        if layout.has_shared:
            shared = f"{block}.shared_expert.{projection}.weight"
            yield MoeTensor(shared, "shared", source=name, layer=layer, is_residual=is_residual)
        if is_residual:  # Once a layer.
            yield MoeTensor(f"{block}.gate.weight", "router", layer=layer)
            if layout.has_shared:
                yield MoeTensor(f"{block}.shared_expert_gate.weight", "shared_router", layer=layer)


def expert_tensor(
    tensor: Tensor, *, is_residual: bool, noise_scale: float, residual_scale: float, generator: Generator
) -> Tensor:
    """A copied tensor as an expert has it.

    Args:
        noise_scale: standard deviation of noise that is added, by which copies of one model begin to differ.
        residual_scale: factor on what the expert adds to the residual stream.
    """
    if noise_scale:
        noise = torch.empty(tensor.shape, dtype=torch.float32).normal_(generator=generator)
        tensor = (
            tensor.to(torch.promote_types(tensor.dtype, torch.float32)).add(noise, alpha=noise_scale).to(tensor.dtype)
        )
    return tensor * residual_scale if is_residual and residual_scale != 1 else tensor


# Routers.


def prompt_states(hidden_LBTD: Tensor, mask_BT: Tensor, *, pooled: Literal["last", "mean"]) -> Tensor:
    """One state a layer from the states of prompts, [L, D]: the mean over prompts of a state of each.

    Args:
        hidden_LBTD: what goes into each layer.
        mask_BT: true at tokens, false at padding on either side.
        pooled: a prompt's state is that of its last token, or the mean over its tokens.
    """
    mask_BT = mask_BT.bool()
    if pooled == "mean":
        weights_BT = mask_BT / mask_BT.sum(1, keepdim=True)
    else:
        places_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
        weights_BT = (places_T == torch.where(mask_BT, places_T, -1).amax(1, keepdim=True)).float()
    total_LD: Tensor = torch.einsum("lbtd,bt->ld", hidden_LBTD.float(), weights_BT.float())
    return total_LD / len(mask_BT)


def hidden_router(positive_ELD: Tensor, negative_ELD: Tensor | None = None) -> Tensor:
    """Rows of routers that choose the expert whose prompts a token is like, [L, E, D]; each has length 1.

    Args:
        positive_ELD: state of the prompts that an expert is for, see `prompt_states`.
        negative_ELD: state of prompts that it is not for; zeros where it has none.

    Source: Goddard 2023, https://goddard.blog/posts/clown-moe
    """
    rows_ELD = positive_ELD if negative_ELD is None else positive_ELD - negative_ELD
    lengths_EL1: Tensor = rows_ELD.norm(dim=-1, keepdim=True)
    return (rows_ELD / lengths_EL1.clamp_min(1e-8)).transpose(0, 1).contiguous()


def random_router(num_layers: int, num_experts: int, width: int, *, generator: Generator) -> Tensor:
    """Rows of normal numbers of variance 1, [L, E, D]: decided choices, but arbitrary ones."""
    return torch.empty(num_layers, num_experts, width).normal_(generator=generator)


def uniform_router(num_layers: int, num_experts: int, width: int, *, generator: Generator) -> Tensor:
    """Rows as a new linear layer has them, evenly between plus and minus the root of 1 / width, [L, E, D].

    Near to indifferent: the start for routers that are trained.
    """
    bound = math.sqrt(1 / width)
    return torch.empty(num_layers, num_experts, width).uniform_(-bound, bound, generator=generator)


def alike_layers(router_LED: Tensor, *, largest_condition: float = 5.0) -> list[int]:
    """The layers whose rows are so alike that some experts will hardly be chosen: their prompts are too similar.

    Args:
        largest_condition: of the matrix of rows, above which it counts as such.
    """
    return [
        layer for layer, rows in enumerate(router_LED) if float(torch.linalg.cond(rows.float())) > largest_condition
    ]
