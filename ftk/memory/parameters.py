"""How many weights a model has, in all, for one token, and by the matrices that tuning and quantization act on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ftk.memory.architecture import Architecture, Fused, Linear


@dataclass(frozen=True, slots=True)
class Inventory:
    """Every weight of a model. Names are whole, such as `model.layers.0.self_attn.q_proj`."""

    linears: tuple[Linear, ...]
    """All matrix products but the output head."""
    fused: tuple[Fused, ...]
    """Experts' weights that are one parameter a layer."""
    embedding: int
    """Weights of the embeddings, which look up and do not multiply."""
    head: Linear | None
    """The output head; None in a model without one."""
    tied: bool
    """Whether the output head is the embedding, whose weights count once."""
    norms: tuple[int, ...]
    """Sizes of the norms' weights and biases, and of other vectors by themselves."""
    others: tuple[int, ...] = ()
    """Sizes of what is left: routers and the like."""
    inactive: int = 0
    """Weights of the experts that one token does not go to."""

    @property
    def total(self) -> int:
        """All weights; shared ones once."""
        head = self.head.num_parameters if self.head is not None else 0
        if self.tied and self.head is not None:
            head -= self.head.num_weights
        matrices = sum(linear.num_parameters for linear in self.linears)
        return (
            matrices
            + sum(one.num_weights for one in self.fused)
            + self.embedding
            + head
            + sum(self.norms + self.others)
        )

    @property
    def active(self) -> int:
        """Weights that take part for one token: of experts only those that it goes to."""
        return self.total - self.inactive


def inventory(architecture: Architecture) -> Inventory:
    """Every weight of a model of the families in the table."""
    hidden, layers = architecture.hidden, architecture.num_layers
    final_norm = (hidden, hidden) if architecture.norm == "layer" else (hidden,)
    router = (architecture.router_weights,) if architecture.num_experts else ()
    idle = architecture.num_experts - architecture.experts_per_token
    per_expert = sum(one.in_features * one.out_features for one in architecture.fused())
    return Inventory(
        linears=tuple(_placed(architecture.linears(), architecture)),
        fused=architecture.fused() * layers,
        embedding=architecture.vocabulary * hidden,
        head=Linear("lm_head", hidden, architecture.vocabulary),
        tied=architecture.tied,
        norms=(*architecture.layer_vectors * layers, *final_norm),
        others=router * layers,
        inactive=layers * idle * per_expert,
    )


def _placed(linears: Sequence[Linear], architecture: Architecture) -> Iterator[Linear]:
    prefix = "gpt_neox" if architecture.model_type == "gpt_neox" else "model"
    for number in range(architecture.num_layers):
        for linear in linears:
            name = f"{prefix}.layers.{number}.{linear.name}"
            yield Linear(name, linear.in_features, linear.out_features, linear.bias)
