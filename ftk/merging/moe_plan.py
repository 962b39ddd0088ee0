"""The tensors of a mixture of experts, planned from open models, and what makes each of them.

Shapes: L layers, E experts, D width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Generator, Tensor

from ftk.core.errors import ModelError, RecipeError
from ftk.merging.configuration import ModelName
from ftk.merging.method import MergeError, NeedsBase, NumModels, Parameter, Parameters, Settings
from ftk.merging.mixture import Expert, Mixture
from ftk.merging.moe import MoeTensor, expert_tensor, layout_for, moe_config, moe_tensors
from ftk.merging.open_model import Input, OpenModel, PlannedTensor
from ftk.merging.safetensors_file import TensorSpec

ROUTER, SHARED_ROUTER = "router_of_layer", "shared_router_of_layer"
"""Settings of tensors that are no model's."""
MAX_SHOWN = 3


@dataclass(frozen=True)
class PlannedMixture:
    """What a mixture consists of."""

    tensors: list[PlannedTensor]
    config: dict[str, Any]


def plan_mixture(
    mixture: Mixture, models: Mapping[ModelName, OpenModel], base_config: Mapping[str, Any]
) -> PlannedMixture:
    """All tensors of the mixture and its configuration; nothing but headers is read.

    Args:
        mixture: what was asked for.
        models: all models of it.
        base_config: the base's configuration with its defaults filled in.

    Raises:
        RecipeError: of models of these types no such mixture can be made.
        ModelError: an expert does not fit the base.
    """
    types = [str(one.config.get("model_type")) for one in models.values()]
    num_experts = len(mixture.experts)
    try:
        layout = layout_for(types, num_shared=len(mixture.shared))
        config = moe_config(base_config, layout, num_experts=num_experts, experts_per_token=mixture.experts_per_token)
        drafts = list(moe_tensors(models[mixture.base].names, layout, num_experts=num_experts))
    except MergeError as error:
        raise RecipeError(str(error), place=mixture.place) from error
    if mixture.architecture not in (None, layout.model_type):
        raise RecipeError(
            f"architecture is {mixture.architecture}, and these models make a {layout.model_type}. Leave it out",
            place=mixture.place,
        )
    width = int(config["hidden_size"])
    planned = [_planned(draft, mixture, models, width) for draft in drafts]
    _require_fitting(planned, models[mixture.base])
    return PlannedMixture(planned, config)


def _planned(draft: MoeTensor, mixture: Mixture, models: Mapping[ModelName, OpenModel], width: int) -> PlannedTensor:
    base = models[mixture.base]
    if draft.of in ("router", "shared_router"):
        num_rows = len(mixture.experts) if draft.of == "router" else len(mixture.shared)
        dtype = mixture.dtype or base.spec(str(base.embedding or base.names[0])).dtype
        key = ROUTER if draft.of == "router" else SHARED_ROUTER
        settings: dict[str, float | bool] = {key: int(draft.layer or 0)}
        return PlannedTensor(draft.name, TensorSpec(dtype, (num_rows, width)), (), None, (), settings, None)
    source = str(draft.source)
    expert = _expert(draft, mixture)
    model = base if expert is None else models[expert.model]
    if source not in model.checkpoint.tensors:
        raise ModelError(
            f"{model.name} and {base.name} differ in architecture: {base.name} has {source}, and {model.name} lacks it",
            place=expert.place if expert is not None else None,
        )
    # Experts of one layer become one tensor as they are loaded, hence the base's dtype for all.
    own = base.spec(source)
    dtype = mixture.dtype if mixture.dtype is not None and own.dtype.is_floating_point else own.dtype
    parameters: dict[str, float] = {}
    if expert is not None and expert.noise_scale:
        parameters["noise_scale"] = expert.noise_scale
    if expert is not None and draft.is_residual and expert.residual_scale != 1:
        parameters["residual_scale"] = expert.residual_scale
    spec = TensorSpec(dtype, own.shape)
    return PlannedTensor(draft.name, spec, (Input(model, source),), None, (parameters,), {}, None)


def _expert(draft: MoeTensor, mixture: Mixture) -> Expert | None:
    if draft.of == "expert":
        return mixture.experts[int(draft.expert or 0)]
    return mixture.shared[0] if draft.of == "shared" else None


def _require_fitting(planned: Sequence[PlannedTensor], base: OpenModel) -> None:
    wrong: dict[str, None] = {}
    for one in planned:
        for source in one.inputs:
            found, expected = source.spec.shape, one.spec.shape
            if found != expected:
                text = f"{source.name} is {list(expected)} in {base.name} and {list(found)} in {source.model.name}"
                wrong[text] = None
    if wrong:
        shown = "; ".join(list(wrong)[:MAX_SHOWN])
        more = f"; and {len(wrong) - MAX_SHOWN} more" if len(wrong) > MAX_SHOWN else ""
        raise ModelError(f"the models differ in shape: {shown}{more}. Experts must be of the base's size")


class Mixing:
    """Makes the tensors of a mixture: a `Method` whose routers are given."""

    per_model: ClassVar[tuple[Parameter, ...]] = ()
    needs_base: ClassVar[NeedsBase] = "never"
    num_models: ClassVar[NumModels] = (0, 1)

    def __init__(self, routers_LED: Tensor, shared_LED: Tensor | None) -> None:
        self._routers = {ROUTER: routers_LED} | ({SHARED_ROUTER: shared_LED} if shared_LED is not None else {})

    def check(self, *, parameters: Parameters, settings: Settings, has_base: bool) -> None:
        """See `Method.check`: what can be wrong was found when the file was read."""

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
        for key, layer in settings.items():
            return self._routers[key][int(layer)].clone()
        return expert_tensor(
            tensors[0],
            is_residual=True,
            noise_scale=float(parameters[0].get("noise_scale", 0.0)),
            residual_scale=float(parameters[0].get("residual_scale", 1.0)),
            generator=generator,
        )
