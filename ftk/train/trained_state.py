"""What training changes in memory: trained weights, buffers that moved, and the optimizer's states, by name."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ftk.core.errors import RunError
from ftk.train.shard import like_shard, local, unwrapped, whole

Numbers = dict[str, float]


class TrainedState:
    """Takes out and puts back what training changes. Frozen weights are left where they came from."""

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self._model = unwrapped(model)
        self._optimizer = optimizer
        # torch counts the writes to each tensor, so a change is seen without a copy to compare with.
        self._versions = {name: buffer._version for name, buffer in _persistent_buffers(self._model)}

    def weights(self, *, keep: bool) -> dict[str, Tensor]:
        """Trained parameters and changed buffers, whole and on the CPU; every process must call this.

        Where `keep` is false the tensors are gathered for the others' sake and dropped.
        """
        changed = [(name, buffer) for name, buffer in self._buffers() if buffer._version != self._versions.get(name)]
        tensors: dict[str, Tensor] = {}
        for name, tensor in [*self._parameters().items(), *changed]:
            full = whole(tensor.detach())
            if keep:
                tensors[name] = full.cpu().contiguous()
        return tensors

    def optimizer_states(self, *, keep: bool) -> tuple[dict[str, Tensor], Numbers]:
        """The optimizer's tensors, whole and on the CPU, and its plain numbers, by `parameter/state`."""
        tensors: dict[str, Tensor] = {}
        numbers: Numbers = {}
        stored: set[int] = set()
        for name, parameter in self._parameters().items():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    full = whole(value.detach())
                    if keep:
                        full = full.cpu().contiguous()
                        # Eight-bit states of all parameters share one table of codes, and a safetensors file holds
                        # no tensor twice.
                        full = full.clone() if full.data_ptr() in stored else full
                        stored.add(full.data_ptr())
                        tensors[f"{name}/{key}"] = full
                elif value is not None:
                    numbers[f"{name}/{key}"] = value
        return tensors, numbers

    @torch.no_grad()
    def load_weights(self, names: set[str], read: Callable[[str], Tensor]) -> None:
        """Put back weights; `read` gives a whole tensor by name.

        Raises:
            RunError: the names are not those of the trained parameters.
        """
        parameters, buffers = self._parameters(), dict(self._buffers())
        differing = sorted((parameters.keys() - names) | (names - parameters.keys() - buffers.keys()))
        if differing:
            raise RunError(
                f"the checkpoint is of another model or tuning: {differing[0]} and {len(differing) - 1} more are not "
                "trained in both. Start a new run with --fresh"
            )
        for name in sorted(names):
            target = parameters.get(name, buffers.get(name))
            assert target is not None
            local(target).copy_(local(like_shard(read(name), target)))

    def load_optimizer_states(self, names: set[str], read: Callable[[str], Tensor], numbers: Numbers) -> None:
        """Put back the optimizer's states, as `optimizer_states` named them."""
        state: dict[int, dict[str, Any]] = {}
        parameters = self._parameters()
        places = {id(parameter): place for place, parameter in enumerate(self._in_groups())}
        for key in sorted({*names, *numbers}):
            name, state_name = key.rsplit("/", 1)
            parameter = parameters[name]
            value: Any = numbers[key] if key in numbers else read(key)
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim:
                value = like_shard(value, parameter.detach())
            state.setdefault(places[id(parameter)], {})[state_name] = value
        self._optimizer.load_state_dict({"state": state, "param_groups": self._optimizer.state_dict()["param_groups"]})

    def _parameters(self) -> dict[str, nn.Parameter]:
        trained = {id(parameter) for parameter in self._in_groups()}
        found = {name: one for name, one in self._model.named_parameters() if id(one) in trained}
        if len(found) < len(trained):
            # What would be left out of a checkpoint would be lost.
            raise RuntimeError(f"{len(trained) - len(found)} trained parameters are not among the model's")
        return found

    def _in_groups(self) -> Iterator[nn.Parameter]:
        for group in self._optimizer.param_groups:
            yield from group["params"]

    def _buffers(self) -> Iterator[tuple[str, Tensor]]:
        return _persistent_buffers(self._model)


def _persistent_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                yield f"{prefix}.{name}" if prefix else name, buffer
