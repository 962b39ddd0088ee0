"""Where layers are in a model's tensor names and in its configuration."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_LAYER = re.compile(r"(?P<stack>(?:.*?\.)??)(?P<index>\d+)\.(?P<rest>.+)")
NUM_LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers")
"""What configurations call their number of layers."""
LAYER_INDICES = ("mlp_only_layers",)
"""Entries of configurations that list layers by their index."""
BUFFERS = re.compile(
    r"rotary_emb\.inv_freq$|\.attn\.masked_bias$|(^|\.)h\.\d+\.attn\.bias$|\.attention\.(masked_)?bias$"
)
"""Tensors of old checkpoints that are no weights and that transformers computes itself."""
EMBEDDINGS = re.compile(
    r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|shared|embedding|embeddings)\.weight$"
)
HEADS = re.compile(r"(^|\.)(lm_head|embed_out|output)\.(weight|bias)$")


@dataclass(frozen=True)
class LayerName:
    """A tensor's name in parts: `model.layers.` `7` `mlp.up_proj.weight`."""

    stack: str
    index: int
    rest: str

    def at(self, index: int) -> str:
        """The name of the same tensor in another layer."""
        return f"{self.stack}{index}.{self.rest}"


def layer_name(name: str) -> LayerName | None:
    """The parts of a name; None for a tensor outside of layers."""
    match = _LAYER.fullmatch(name)
    return LayerName(match["stack"], int(match["index"]), match["rest"]) if match else None


def stacks(names: Iterable[str]) -> dict[str, int]:
    """How many layers there are under each prefix, where they are numbered from 0 without a gap."""
    indices: dict[str, set[int]] = {}
    for name in names:
        parts = layer_name(name)
        if parts is not None:
            indices.setdefault(parts.stack, set()).add(parts.index)
    return {stack: len(found) for stack, found in indices.items() if found == set(range(len(found)))}


def main_stack(names: Iterable[str], config: Mapping[str, Any]) -> str | None:
    """The prefix of the layers that `num_hidden_layers` counts; None where that cannot be told."""
    found = stacks(names)
    if len(found) == 1:
        return next(iter(found))
    fitting = [stack for stack, count in found.items() if count == num_layers(config)]
    return fitting[0] if len(fitting) == 1 else None


def num_layers(config: Mapping[str, Any]) -> int | None:
    """As the configuration says, of the language model where there are other parts."""
    for part in (config.get("text_config"), config):
        for key in NUM_LAYERS:
            if isinstance(part, Mapping) and isinstance(part.get(key), int):
                return int(part[key])
    return None


def is_first(name: str) -> bool:
    """Whether a tensor outside of layers comes before them, as embeddings do; norms and heads come after."""
    return "embed" in name or ".wte." in f".{name}" or ".wpe." in f".{name}"


def with_layers(config: Mapping[str, Any], layers: Sequence[tuple[Mapping[str, Any], int]]) -> dict[str, Any]:
    """The configuration of a model made of such layers, each given by the configuration it comes from and its index."""
    changed = dict(config)
    if isinstance(config.get("text_config"), Mapping) and num_layers(config["text_config"]) is not None:
        inner = [(source.get("text_config", source), index) for source, index in layers]
        return {**changed, "text_config": with_layers(config["text_config"], inner)}
    before = num_layers(config)
    for key, value in config.items():
        if key in NUM_LAYERS or (key == "max_window_layers" and value == before):
            changed[key] = len(layers)
        elif key in LAYER_INDICES and isinstance(value, list):
            changed[key] = [new for new, (source, old) in enumerate(layers) if old in source.get(key, value)]
        elif "layer" in key and isinstance(value, list) and len(value) == before:
            changed[key] = [source.get(key, value)[index] for source, index in layers]
    return changed
