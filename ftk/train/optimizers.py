"""How gradients become updates: one class an optimizer. A new optimizer joins the union at the end."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from ftk.core.config import ByName, Section
from ftk.core.errors import SetupError

NamedParameters = Iterable[tuple[str, nn.Parameter]]

Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]

FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})
"""Where torch 2.10 and later have a fused AdamW."""
STATES_IN_32_BITS_BELOW = 4096
"""Weights of a tensor from which on bitsandbytes keeps its states in eight bits; of smaller ones there is no gain."""
BLOCK = 256
"""States that share one constant in bitsandbytes' eight-bit optimizers."""


def is_decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay acts on a parameter: matrices, but no norms, biases or embeddings.

    Norm weights and biases are vectors; an embedding is known by its name (`embed_tokens`, `wte`, `wpe`).
    """
    parts = name.lower().split(".")
    is_embedding = any("embed" in part or part in ("wte", "wpe") for part in parts)
    is_norm_or_bias = parameter.ndim < 2 or parts[-1] == "bias" or any("norm" in part for part in parts[-2:])
    return not (is_embedding or is_norm_or_bias)


def decay_groups(named_parameters: NamedParameters, *, weight_decay: float) -> list[dict[str, Any]]:
    """The trained parameters in at most two groups: with weight decay, and without."""
    trained = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
    decayed = [parameter for name, parameter in trained if is_decayed(name, parameter)]
    others = [parameter for name, parameter in trained if not is_decayed(name, parameter)]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


class AdamW(Section):
    """Adam with decoupled weight decay; two float32 states a trained parameter.

    Source: Loshchilov and Hutter 2019 (arXiv:1711.05101), algorithm 2.
    """

    name: Literal["adamw"] = "adamw"
    """`adamw`: the customary choice."""
    betas: Betas = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square. A second one of 0.95 forgets bursts sooner."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second mean; larger values damp rarely trained weights."""

    def state_bytes(self, num_weights: int) -> int:
        """Bytes that are kept for one parameter of so many weights: two float32 means."""
        return 8 * num_weights

    def update_bytes(self, num_weights: int, *, device: str) -> int:
        """Bytes that an update takes for the while: none, as one kernel does it in place."""
        return 0

    def build(
        self, named_parameters: NamedParameters, *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """The optimizer over the parameters that are trained; fused where the device has such a kernel."""
        groups = decay_groups(named_parameters, weight_decay=weight_decay)
        devices = {parameter.device.type for group in groups for parameter in group["params"]}
        return torch.optim.AdamW(
            groups, lr=learning_rate, betas=self.betas, eps=self.epsilon, fused=devices <= FUSED_DEVICES or None
        )


class AdamW8bit(Section):
    """AdamW with its two states in eight bits, a constant for each block of 256; a quarter of their memory.

    Source: Dettmers et al. 2022 (arXiv:2110.02861), section 2.1.
    """

    name: Literal["adamw_8bit"] = "adamw_8bit"
    """`adamw_8bit`: `adamw` with a quarter of its states' memory, at nearly the same result."""
    betas: Betas = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square. A second one of 0.95 forgets bursts sooner."""
    epsilon: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the second mean; larger values damp rarely trained weights."""

    def state_bytes(self, num_weights: int) -> int:
        """Bytes that are kept for one parameter of so many weights: two a weight, two float32 constants a block.

        Of fewer than 4,096 weights the states are float32. What the codes mean is one table of 2 KiB for all
        parameters together, which is left out.
        """
        if num_weights < STATES_IN_32_BITS_BELOW:
            return 2 * 4 * num_weights
        return 2 * num_weights + 2 * 4 * -(-num_weights // BLOCK)

    def update_bytes(self, num_weights: int, *, device: str) -> int:
        """Bytes that the update of one parameter of so many float32 weights takes for the while.

        A GPU updates in place. A CPU unpacks: both means, the scaled gradient, the root of the second mean and that
        root's quotient by its correction are float32 and alive together, five numbers a weight.

        Source: `_optimizer_update_8bit_blockwise_cpu` of bitsandbytes 0.50, backends/cpu/ops.py.
        """
        return 5 * 4 * num_weights if device == "cpu" and num_weights >= STATES_IN_32_BITS_BELOW else 0

    def build(
        self, named_parameters: NamedParameters, *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """The optimizer over the parameters that are trained."""
        from bitsandbytes.optim import AdamW8bit as Blockwise

        built: torch.optim.Optimizer = Blockwise(
            decay_groups(named_parameters, weight_decay=weight_decay),
            lr=learning_rate,
            betas=self.betas,
            eps=self.epsilon,
            min_8bit_size=STATES_IN_32_BITS_BELOW,
        )
        return built

    def check_device(self, device: torch.device) -> None:
        """Find out, by one update of one tensor, that bitsandbytes computes such states on a device.

        Raises:
            SetupError: it does not.
        """
        weight = nn.Parameter(torch.zeros(STATES_IN_32_BITS_BELOW, device=device))
        weight.grad = torch.ones_like(weight)
        try:
            self.build([("weight", weight)], learning_rate=1.0, weight_decay=0.0).step()
            moved = bool((weight < 0).all())
            reason = "" if moved else "an update left its weights where they were"
        except (RuntimeError, NotImplementedError, AttributeError) as error:
            # An operator without a kernel for the device, or a library that could not be loaded.
            moved, reason = False, str(error).strip().split("\n")[0]
        if not moved:
            raise SetupError(
                f"training.optimizer: adamw_8bit does not run on this device ({device}) with the bitsandbytes that is "
                f"installed: {reason}. Use adamw, or a bitsandbytes of 0.50 or later that is built for the device",
                place="training.optimizer",
            )


class Sgd(Section):
    """Stochastic gradient descent; one float32 state a trained parameter with momentum, else none."""

    name: Literal["sgd"] = "sgd"
    """`sgd`: little memory, but a much larger learning rate and more care."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the last update that goes into the next; 0.9 is customary, 0 keeps no state."""

    def state_bytes(self, num_weights: int) -> int:
        """Bytes that are kept for one parameter of so many weights: the last update in float32, with momentum."""
        return 4 * num_weights if self.momentum else 0

    def update_bytes(self, num_weights: int, *, device: str) -> int:
        """Bytes that an update takes for the while: none without weight decay, which copies the gradient."""
        return 0

    def decay_copies(self, *, device: str) -> Literal["each", "all"]:
        """Which gradients weight decay copies at once: on a CPU each in its turn, on a GPU all.

        Source: `_single_tensor_sgd` and `_multi_tensor_sgd` of torch 2.13, torch/optim/sgd.py.
        """
        return "each" if device == "cpu" else "all"

    def build(
        self, named_parameters: NamedParameters, *, learning_rate: float, weight_decay: float
    ) -> torch.optim.Optimizer:
        """The optimizer over the parameters that are trained. Weight decay is added to the gradient."""
        groups = decay_groups(named_parameters, weight_decay=weight_decay)
        return torch.optim.SGD(groups, lr=learning_rate, momentum=self.momentum)


Optimizer = Annotated[AdamW | AdamW8bit | Sgd, ByName(default="adamw")]
