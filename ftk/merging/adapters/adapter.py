"""An adapter in its folder: what its tensors are."""

import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from ftk.core.errors import ModelError
from ftk.core.weight_files import ADAPTER_WEIGHTS
from ftk.merging.adapters.foldable import require_foldable
from ftk.merging.adapters.names import PREFIX, PROJECTIONS, is_known, split_name
from ftk.merging.stream import Checkpoint

CONFIG = "adapter_config.json"


@dataclass(frozen=True)
class Adapter:
    """An adapter that can be folded into its base."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    """By name, without PEFT's `base_model.model.`."""

    @property
    def kind(self) -> str:
        return str(self.config["peft_type"]).upper()

    @cached_property
    def modules(self) -> dict[str, dict[str, Tensor]]:
        """The parts of each adapted module, by the module's name and PEFT's name of the part."""
        found: defaultdict[str, dict[str, Tensor]] = defaultdict(dict)
        for name, tensor in self.tensors.items():
            module, part = split_name(name)
            if part is not None:
                found[module][part.removesuffix(".weight")] = tensor
        return dict(found)

    @cached_property
    def replaced(self) -> dict[str, Tensor]:
        """Parameters that the adapter brings whole: `modules_to_save`, biases, layer norms, resized embeddings."""
        whole = {}
        for name, tensor in self.tensors.items():
            if split_name(name)[1] is None and name not in PROJECTIONS:
                whole[re.sub(r"\.(base_layer|ln_tuning_layers|modules_to_save)(?=\.)", "", name)] = tensor
        return whole

    def token_indices(self, module: str) -> tuple[int, ...]:
        """The tokens whose rows of `module` the adapter trains, in the order of their values."""
        indices = self._trained_tokens
        if isinstance(indices, Mapping):
            named = (rows for name, rows in indices.items() if module == name or module.endswith(f".{name}"))
            indices = next(named, ())
        return tuple(indices)

    @property
    def num_token_rows(self) -> int:
        """Rows that an embedding needs for the tokens that the adapter trains; 0 where it trains none."""
        indices = self._trained_tokens
        rows = indices.values() if isinstance(indices, Mapping) else [indices]
        return max((int(row) + 1 for some in rows for row in some), default=0)

    @property
    def _trained_tokens(self) -> Any:
        return self.config.get(self.token_key) or ()

    @property
    def token_key(self) -> str:
        """Where its configuration names the tokens that it trains."""
        return "token_indices" if self.kind == "TRAINABLE_TOKENS" else "trainable_token_indices"

    def is_feedforward(self, module: str) -> bool:
        """Whether IA3 scales the inputs of a module, and not its outputs, by PEFT's rule."""
        wanted = self.config.get("feedforward_modules") or ()
        if isinstance(wanted, str):
            return re.fullmatch(wanted, module) is not None
        return any(module.endswith(name) for name in wanted)

    def parameters(self) -> list[str]:
        """Names of the parameters that it changes, as far as names alone tell."""
        return sorted({f"{module}.weight" for module in self.modules} | set(self.replaced))

    def scaling(self, name: str, *, rank: int) -> float:
        """What the update of the module or parameter `name` is multiplied by."""
        alpha = _by_pattern(self.config.get("alpha_pattern") or {}, name, self.config.get("lora_alpha", 8))
        return float(alpha) / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def read_adapter(folder: Path) -> Adapter:
    """An adapter that PEFT saved.

    Raises:
        ModelError: it is none, it is broken, or it cannot be folded.
    """
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"{folder} holds no adapter: expected {CONFIG} and {ADAPTER_WEIGHTS}") from error
    except (OSError, ValueError) as error:
        raise ModelError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"{file} is no configuration of an adapter: expected a JSON object")
    require_foldable(config, f"the adapter in {folder}")
    checkpoint = Checkpoint(folder)
    tensors = {name.removeprefix(PREFIX): checkpoint.read(name) for name in checkpoint.tensors}
    for name in checkpoint.tensors:
        checkpoint.require_finite(name, tensors[name.removeprefix(PREFIX)])
    unknown = [name for name in tensors if not is_known(name)]
    if unknown:
        raise ModelError(
            f"the adapter in {folder} holds {unknown[0]}, which ftk does not know how to fold. PEFT's own "
            "merge_and_unload may"
        )
    return Adapter(folder, config, tensors)


def _by_pattern(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    """PEFT's rule: the first pattern that matches the name's end after a dot, or all of it."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", name)), default)
