"""A transformer as plain numbers: all that its bytes and its work depend on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Linear:
    """A matrix product of a layer, by the name that it has within the layer."""

    name: str
    in_features: int
    out_features: int
    bias: bool = False

    @property
    def num_weights(self) -> int:
        return self.in_features * self.out_features

    @property
    def num_parameters(self) -> int:
        return self.num_weights + self.out_features * self.bias


@dataclass(frozen=True, slots=True)
class Fused:
    """Weights of all experts of a layer in one parameter, shape [experts, out, in]."""

    name: str
    num_experts: int
    in_features: int
    out_features: int

    @property
    def num_weights(self) -> int:
        return self.num_experts * self.in_features * self.out_features


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder of one kind of layer."""

    model_type: str
    """As config.json calls the family."""
    hidden: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    positions: int | None
    """The longest row in tokens; None where the architecture sets no bound."""
    tied: bool
    """Whether the output head is the embedding."""
    norm: Literal["rms", "rms_float", "layer"] = "rms"
    """`rms_float` multiplies by its weight in float32, as Gemma has it."""
    norms: Literal["before", "around", "after", "parallel"] = "before"
    """Before attention and feed-forward, before and after, after alone, or before both side by side."""
    qk_norm: Literal["head", "all"] | None = None
    """Norms of queries and keys: over each head, or over all heads together."""
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    gated: bool = True
    """Whether the feed-forward part has a gate."""
    qkv_name: str | None = None
    """Name of the one product for queries, keys and values, where they are one."""
    attention: str = "self_attn"
    output_name: str = "o_proj"
    mlp_names: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")
    """Of the feed-forward part; two where gate and up are one product, or where there is no gate."""
    activation: Literal["silu", "gelu"] = "silu"
    rotary_share: float = 1.0
    """Part of each head that is turned by its position."""
    rotary_joined: bool = False
    """Whether queries and keys are joined of that part and the rest, even where there is none."""
    num_experts: int = 0
    """0 in a dense model."""
    experts_per_token: int = 0
    expert_intermediate: int = 0
    router_float: bool = False
    """Whether the router's probabilities stay float32, as Mixtral's do."""
    sliding_window: int | None = None
    """How far back attention looks in the layers that have a window."""
    num_sliding_layers: int = 0
    attention_soft_cap: float | None = None
    logit_soft_cap: float | None = None
    embedding_scaled: bool = False
    """Whether embeddings are multiplied by a number before the first layer."""

    @property
    def queries(self) -> int:
        """Width of all queries of a token."""
        return self.num_heads * self.head_dim

    @property
    def keys(self) -> int:
        """Width of all keys of a token, and of all values."""
        return self.num_kv_heads * self.head_dim

    def linears(self) -> tuple[Linear, ...]:
        """The matrix products of one layer, as transformers names them."""
        attention = self.attention
        output = Linear(f"{attention}.{self.output_name}", self.queries, self.hidden, self.output_bias)
        if self.qkv_name is not None:
            width = self.queries + 2 * self.keys
            products = [Linear(f"{attention}.{self.qkv_name}", self.hidden, width, self.qkv_bias), output]
        else:
            products = [
                Linear(f"{attention}.q_proj", self.hidden, self.queries, self.qkv_bias),
                Linear(f"{attention}.k_proj", self.hidden, self.keys, self.qkv_bias),
                Linear(f"{attention}.v_proj", self.hidden, self.keys, self.qkv_bias),
                output,
            ]
        if self.num_experts:
            return tuple(products)
        *up, down = self.mlp_names
        width = self.intermediate * (2 if self.gated and len(up) == 1 else 1)
        products += [Linear(f"mlp.{name}", self.hidden, width, self.mlp_bias) for name in up]
        return (*products, Linear(f"mlp.{down}", self.intermediate, self.hidden, self.mlp_bias))

    def fused(self) -> tuple[Fused, ...]:
        """The experts' weights of one layer."""
        if not self.num_experts:
            return ()
        inner = self.expert_intermediate
        return (
            Fused("mlp.experts.gate_up_proj", self.num_experts, self.hidden, 2 * inner),
            Fused("mlp.experts.down_proj", self.num_experts, inner, self.hidden),
        )

    @property
    def layer_vectors(self) -> tuple[int, ...]:
        """Sizes of the norms' weights and biases of one layer."""
        per_norm = 2 if self.norm == "layer" else 1
        found = (self.hidden,) * (per_norm * (4 if self.norms == "around" else 2))
        if self.qk_norm == "head":
            found += (self.head_dim, self.head_dim)
        elif self.qk_norm == "all":
            found += (self.queries, self.keys)
        return found

    @property
    def router_weights(self) -> int:
        """Weights of one layer's router."""
        return self.num_experts * self.hidden


FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {},
    "mistral": {},
    "mixtral": {"router_float": True},
    "qwen2": {"qkv_bias": True},
    "qwen3": {"qk_norm": "head"},
    "qwen3_moe": {"qk_norm": "head"},
    "olmo2": {"qk_norm": "all", "norms": "after"},
    "gemma": {"norm": "rms_float", "activation": "gelu", "embedding_scaled": True},
    "gemma2": {"norm": "rms_float", "norms": "around", "activation": "gelu", "embedding_scaled": True},
    "gemma3_text": {
        "norm": "rms_float",
        "norms": "around",
        "qk_norm": "head",
        "activation": "gelu",
        "embedding_scaled": True,
    },
    "phi3": {"rotary_joined": True, "qkv_name": "qkv_proj", "mlp_names": ("gate_up_proj", "down_proj")},
    "gpt_neox": {
        "norm": "layer",
        "norms": "parallel",
        "qkv_bias": True,
        "output_bias": True,
        "mlp_bias": True,
        "gated": False,
        "qkv_name": "query_key_value",
        "attention": "attention",
        "output_name": "dense",
        "mlp_names": ("dense_h_to_4h", "dense_4h_to_h"),
        "activation": "gelu",
        "rotary_share": 0.25,
        "rotary_joined": True,
    },
}
"""What the families have that their configurations do not say.

Source: the modelling code of transformers 5.23, `models/<family>/modeling_<family>.py`.
"""

_NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")


@dataclass(frozen=True, slots=True)
class _Config:
    """A configuration in which null is as good as left out."""

    values: Mapping[str, Any]

    def get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key)
        return default if value is None else value


def from_config(values: Mapping[str, Any]) -> Architecture | None:
    """The architecture that a config.json describes; None for a family, or a form of one, that is not in the table."""
    family = str(values.get("model_type"))
    if family not in FAMILIES or any(values.get(key) is None for key in _NEEDED) or _is_unusual(family, values):
        return None
    config = _Config(values)
    heads = config.get("num_attention_heads")
    hidden = config.get("hidden_size")
    architecture = Architecture(
        model_type=family,
        hidden=hidden,
        num_layers=config.get("num_hidden_layers"),
        num_heads=heads,
        num_kv_heads=config.get("num_key_value_heads", heads),
        head_dim=config.get("head_dim", hidden // heads),
        intermediate=config.get("intermediate_size"),
        vocabulary=config.get("vocab_size"),
        positions=config.get("max_position_embeddings"),
        tied=bool(config.get("tie_word_embeddings", family.startswith("gemma"))),
        **FAMILIES[family],
    )
    return _with_experts(_with_windows(_with_biases(architecture, config), config), config)


def _is_unusual(family: str, values: Mapping[str, Any]) -> bool:
    """A form whose layers are not all alike, or whose numbers have to be guessed: transformers builds it."""
    if family == "qwen3_moe" and (values.get("mlp_only_layers") or values.get("decoder_sparse_step", 1) != 1):
        return True
    if family == "gpt_neox" and values.get("use_parallel_residual") is False:
        return True
    no_head_dim = family in ("qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text") and not values.get("head_dim")
    no_groups = family in ("mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text")
    return no_head_dim or (no_groups and values.get("num_key_value_heads") is None)


def _with_biases(architecture: Architecture, config: _Config) -> Architecture:
    if architecture.model_type in ("llama", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "olmo2"):
        bias = bool(config.get("attention_bias", False))
        architecture = replace(architecture, qkv_bias=bias, output_bias=bias)
    if architecture.model_type == "llama":
        return replace(architecture, mlp_bias=bool(config.get("mlp_bias", False)))
    if architecture.model_type == "gpt_neox":
        bias = bool(config.get("attention_bias", True))
        share = (config.get("rope_parameters", {}) or {}).get("partial_rotary_factor", config.get("rotary_pct", 0.25))
        return replace(architecture, qkv_bias=bias, output_bias=bias, rotary_share=float(share))
    return architecture


def _with_windows(architecture: Architecture, config: _Config) -> Architecture:
    """Windows and soft caps; defaults as in the families' configuration classes."""
    family, layers = architecture.model_type, architecture.num_layers
    window, sliding = None, 0
    if family in ("mistral", "mixtral", "phi3"):
        window = config.get("sliding_window")
        sliding = layers if window else 0
    elif family in ("qwen2", "qwen3") and config.get("use_sliding_window", False):
        window = config.get("sliding_window", 4096)
        sliding = max(0, layers - config.get("max_window_layers", 28))
    elif family in ("gemma2", "gemma3_text"):
        window = config.get("sliding_window", 4096)
        pattern = 2 if family == "gemma2" else config.get("sliding_window_pattern", 6)
        types = config.get("layer_types")
        sliding = sum(kind == "sliding_attention" for kind in types) if types else layers - layers // pattern
    has_caps = family == "gemma2"
    return replace(
        architecture,
        sliding_window=window if sliding else None,
        num_sliding_layers=sliding,
        attention_soft_cap=_cap(config, "attn_logit_softcapping", 50.0) if has_caps else None,
        logit_soft_cap=_cap(config, "final_logit_softcapping", 30.0) if has_caps else None,
    )


def _cap(config: _Config, key: str, default: float) -> float | None:
    """Unlike other keys, null says that there is none."""
    value = config.values.get(key, default)
    return None if value is None else float(value)


def _with_experts(architecture: Architecture, config: _Config) -> Architecture:
    if architecture.model_type == "mixtral":
        return replace(
            architecture,
            num_experts=config.get("num_local_experts", 8),
            experts_per_token=config.get("num_experts_per_tok", 2),
            expert_intermediate=architecture.intermediate,
        )
    if architecture.model_type == "qwen3_moe":
        return replace(
            architecture,
            # transformers writes the second name, and reads both.
            num_experts=config.get("num_experts") or config.get("num_local_experts", 128),
            experts_per_token=config.get("num_experts_per_tok", 8),
            expert_intermediate=config.get("moe_intermediate_size", 768),
        )
    return architecture
