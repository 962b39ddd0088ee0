"""An adapter fitted to a base: what it changes of which of the base's parameters."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ftk.core.errors import ModelError
from ftk.merging.adapters.adapter import CONFIG, Adapter
from ftk.merging.adapters.architecture import Architecture
from ftk.merging.adapters.changes import Add, Change, LowRank, Replace, ReplaceRows, Scale
from ftk.merging.adapters.convolutions import kernel_factors, num_groups
from ftk.merging.adapters.formulas import vera_factors, vera_projections
from ftk.merging.adapters.names import PROJECTIONS

Parts = Mapping[str, Tensor]
"""The tensors of one adapted module, by PEFT's names of the parts."""
Changes = dict[str, list[Change]]
"""By the parameter's name, in the order in which they are made."""
ANOTHER_BASE = "It was trained on another model: name that one with --base"


def changes_of(adapter: Adapter, architecture: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> Changes:
    """What an adapter changes of a base, by parameter.

    Args:
        adapter: which.
        architecture: of the base.
        shapes: of the base's parameters.

    Raises:
        ModelError: it does not fit the base.
    """
    fitting = _Fitting(adapter, architecture, shapes)
    changes: Changes = {name: [Replace(tensor)] for name, tensor in adapter.replaced.items()}
    for module, parts in adapter.modules.items():
        for name, change in fitting.of_module(module, parts).items():
            changes.setdefault(name, []).append(change)
    _add_tied_tokens(changes, architecture)
    return changes


@dataclass(frozen=True)
class _Fitting:
    adapter: Adapter
    architecture: Architecture
    shapes: Mapping[str, tuple[int, ...]]

    def of_module(self, module: str, parts: Parts) -> dict[str, Change]:
        if "lora_A" in parts or "lora_embedding_A" in parts:
            return self._lora(module, parts)
        if "ia3_l" in parts:
            return self._ia3(module, parts["ia3_l"])
        if "vera_lambda_b" in parts:
            return self._vera(module, parts)
        for part in ("token_adapter.trainable_tokens_delta", "trainable_tokens_delta"):
            if part in parts:
                return {f"{module}.weight": self._token_rows(module, parts[part])}
        raise ModelError(
            f"{self.adapter.folder} holds only {', '.join(parts)} of {module}: tensors are missing. Get it again"
        )

    def _lora(self, module: str, parts: Parts) -> dict[str, Change]:
        is_embedding = "lora_embedding_A" in parts
        try:
            a = parts["lora_embedding_A" if is_embedding else "lora_A"]
            b = parts["lora_embedding_B" if is_embedding else "lora_B"]
        except KeyError as error:
            raise ModelError(
                f"{self.adapter.folder} lacks {error} of {module}: its file is incomplete. Get it again"
            ) from error
        name = self._parameter_of(module)
        shape = self._shape(name)
        bare = module.replace(".base_layer", "")
        is_parameter = name != f"{bare}.weight" or module != bare
        num_experts = shape[0] if is_parameter and len(shape) == 3 else None
        if is_embedding:
            transposed = True
        elif num_experts:
            transposed = bare in self.architecture.transposed_experts
        else:
            transposed = self._transposed(bare, shape, num_outputs=b.shape[0])
        scaling = self.adapter.scaling(name if is_parameter else bare, rank=a.shape[0] // (num_experts or 1))
        magnitude = parts.get("lora_magnitude_vector")
        # A convolution's is [1, O, 1...].
        magnitude_O = magnitude.flatten() if magnitude is not None else None
        change = LowRank(a, b, scaling, transposed, magnitude_O, num_experts)
        self._require_fit(name, shape, change)
        found: dict[str, Change] = {name: change}
        if "lora_B.bias" in parts:
            self._shape(f"{bare}.bias")
            found[f"{bare}.bias"] = Add(parts["lora_B.bias"].float() * scaling)
        return found

    def _parameter_of(self, module: str) -> str:
        """The parameter that a LoRA in `module` changes: its weight, or a parameter named in `target_parameters`."""
        depth = module.count(".base_layer")
        bare = module.replace(".base_layer", "")
        wanted = self.adapter.config.get("target_parameters") or ()
        # PEFT wraps the module once for each parameter, in the order in which the module has them.
        wrapped = [
            name
            for own in self.architecture.own_parameters.get(bare, ())
            if any((name := f"{bare}.{own}") == target or name.endswith(f".{target}") for target in wanted)
        ]
        if wrapped and depth < len(wrapped):
            return wrapped[len(wrapped) - 1 - depth]
        return f"{bare}.weight"

    def _ia3(self, module: str, values: Tensor) -> dict[str, Change]:
        weight, bias = f"{module}.weight", f"{module}.bias"
        shape = self._shape(weight)
        if values.ndim > 2:
            # A convolution's are [1, I, 1...] or [1, O, 1...]: only the configuration tells which.
            scales_inputs = self.adapter.is_feedforward(module)
            factors = kernel_factors(values, shape, scales_inputs=scales_inputs)
        else:
            # [1, I] scales the inputs of a feedforward module, [O, 1] the outputs of another.
            scales_inputs = values.shape[0] == 1
            num = values.numel()
            transposed = self._transposed(
                module, shape, num_outputs=None if scales_inputs else num, num_inputs=num if scales_inputs else None
            )
            factors = values.T if transposed else values
        found: dict[str, Change] = {weight: Scale(factors)}
        if not scales_inputs and bias in self.shapes:
            found[bias] = Scale(values.flatten())
        return found

    def _vera(self, module: str, parts: Parts) -> dict[str, Change]:
        weight = f"{module}.weight"
        shape = self._shape(weight)
        transposed = self._transposed(module, shape, num_outputs=len(parts["vera_lambda_b"]))
        a_RI, b_OR = vera_factors(
            parts["vera_lambda_b"],
            parts["vera_lambda_d"],
            *self._projections(),
            num_columns=shape[0 if transposed else 1],
        )
        return {weight: LowRank(a_RI, b_OR, 1.0, transposed)}

    def _projections(self) -> tuple[Tensor, Tensor]:
        """The projections that all modules share: saved with the adapter, or drawn again as PEFT drew them."""
        tensors = self.adapter.tensors
        if set(PROJECTIONS) <= set(tensors):
            return tensors[PROJECTIONS[0]], tensors[PROJECTIONS[1]]
        # As wide and as high as the widest and highest of all adapted weights.
        num_rows = num_columns = 0
        for module, parts in self.adapter.modules.items():
            shape, num_outputs = self._shape(f"{module}.weight"), len(parts["vera_lambda_b"])
            num_rows = max(num_rows, num_outputs)
            num_columns = max(num_columns, math.prod(shape) // num_outputs)
        return vera_projections(
            rank=int(self.adapter.config["r"]),
            num_rows=num_rows,
            num_columns=num_columns,
            seed=int(self.adapter.config.get("projection_prng_key", 0)),
        )

    def _token_rows(self, module: str, values: Tensor) -> Change:
        indices = self.adapter.token_indices(module)
        if len(indices) != len(values):
            raise ModelError(
                f"{self.adapter.folder} trains {len(indices)} tokens by its {CONFIG} ({self.adapter.token_key}) and "
                f"holds {len(values)} rows for {module}. One of the two files is another adapter's"
            )
        return ReplaceRows(torch.tensor(indices), values)

    def _transposed(
        self, module: str, shape: tuple[int, ...], *, num_outputs: int | None = None, num_inputs: int | None = None
    ) -> bool:
        """Whether the weight is stored as [inputs, outputs]; the adapter's own shape tells, unless it is square."""
        if self.architecture.is_known:
            return module in self.architecture.conv1d
        if len(shape) != 2 or shape[0] == shape[1]:
            return False
        if num_outputs is not None:
            return shape[1] == num_outputs
        return shape[0] == num_inputs

    def _shape(self, name: str) -> tuple[int, ...]:
        replaced = self.adapter.replaced.get(name)
        if replaced is not None:
            # An embedding that was resized before it was adapted.
            return tuple(replaced.shape)
        if name not in self.shapes:
            raise ModelError(
                f"the adapter in {self.adapter.folder} changes {name}, which its base does not have. {ANOTHER_BASE}"
            )
        return self.shapes[name]

    def _require_fit(self, name: str, shape: tuple[int, ...], change: LowRank) -> None:
        experts = change.num_experts or 1
        rank = change.a_RI.shape[0] // experts
        groups = num_groups(change.a_RI.shape, change.b_OR.shape) if len(shape) > 2 and experts == 1 else 1
        if groups > 1:
            raise ModelError(
                f"the adapter in {self.adapter.folder} adapts {name}, a convolution in {groups} groups: its update "
                "goes from each group to all, which no weight of the base can stand for. Keep it beside its base"
            )
        a, b = tuple(change.a_RI.shape), tuple(change.b_OR.shape)
        rows_columns = shape[1:] if change.num_experts else shape
        first, rest = rows_columns[0], math.prod(rows_columns[1:])
        outputs, inputs = (rest, first) if change.transposed else (first, rest)
        if rank == 0 or b[1] != a[0] or b[0] != outputs or math.prod(a[1:]) != inputs:
            raise ModelError(
                f"the adapter in {self.adapter.folder} does not fit {name}: its factors are {a} and {b}, and the "
                f"base's weight is {shape}. {ANOTHER_BASE}"
            )


def _add_tied_tokens(changes: Changes, architecture: Architecture) -> None:
    # PEFT trains the rows of a tied head together with the embedding's, and saves them once.
    for alias, source in architecture.tied.items():
        rows = [change for change in changes.get(source, ()) if isinstance(change, ReplaceRows)]
        if rows and alias not in changes:
            changes[alias] = list(rows)
