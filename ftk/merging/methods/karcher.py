"""`karcher`: the mean of the models' directions on the sphere. Shapes: M models."""

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Generator, Tensor

from ftk.core.config import Section
from ftk.merging.method import NeedsBase, NumModels, Parameter, Parameters, Settings, check_weights, values
from ftk.merging.sphere import inner_products, karcher_weights, model_vectors
from ftk.merging.weighted_sum import weighted_sum


def karcher(
    tensors_M: Sequence[Tensor], *, weights_M: Sequence[float], max_iterations: int = 10, tolerance: float = 1e-5
) -> Tensor:
    """The point of the sphere with the least weighted sum of squared angles to the tensors, at their mean length.

    Tensors no longer than `tolerance` have no direction, and count for the length alone.

    Raises:
        MergeError: the weights sum to zero, of all tensors or of those with a direction.

    Source: Karcher 1977 (doi:10.1002/cpa.3160300502), on model weights as in arXiv:2603.04972.
    """
    if len(tensors_M) == 1:
        return tensors_M[0]
    check_weights(weights_M)
    products_MM = inner_products(model_vectors(tensors_M, None), tensors_M[0].numel())
    lengths_M = products_MM.diagonal().sqrt()
    directed = [index for index, length in enumerate(lengths_M.tolist()) if length > tolerance]
    factors_M = torch.zeros(len(tensors_M), dtype=torch.float64)
    if directed:
        shares = [weights_M[index] for index in directed]
        check_weights(shares)
        lengths = lengths_M[directed]
        cosines = products_MM[directed][:, directed] / (lengths * lengths[:, None])
        shares = [share / sum(shares) for share in shares]
        on_units = karcher_weights(cosines, shares, max_iterations=max_iterations, tolerance=tolerance)
        mean_length = sum(w * length for w, length in zip(weights_M, lengths_M.tolist(), strict=True)) / sum(weights_M)
        factors_M[directed] = on_units / lengths * mean_length
    return weighted_sum(tensors_M, factors_M.tolist())


class Karcher(Section):
    """The mean on the sphere of any number of models: what slerp at the middle is for two."""

    name: Literal["karcher"] = "karcher"
    """`karcher`: the Riemannian mean of directions."""
    max_iter: Annotated[int, Field(ge=1)] = 10
    """Steps of the iteration at most; finetunes of one base need two or three."""
    tol: Annotated[float, Field(gt=0)] = 1e-5
    """A step shorter than this, in radians, ends the iteration."""

    per_model: ClassVar[tuple[Parameter, ...]] = (
        Parameter("weight", "Share of the model in the mean.", default=1.0, lowest=0.0),
    )
    needs_base: ClassVar[NeedsBase] = "never"
    num_models: ClassVar[NumModels] = (1, None)

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`."""
        check_weights(values(parameters, "weight"))

    def merge(
        self,
        tensors: Sequence[Tensor],
        *,
        base: Tensor | None,
        parameters: Parameters,
        settings: Settings,
        generator: Generator,
    ) -> Tensor:
        """See `Method.merge`."""
        return karcher(
            tensors,
            weights_M=values(parameters, "weight"),
            max_iterations=int(settings["max_iter"]),
            tolerance=float(settings["tol"]),
        )
