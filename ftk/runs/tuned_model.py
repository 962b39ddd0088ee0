"""The model of a run: loaded, quantized where asked, and wrapped so that the chosen weights move."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from ftk.core.errors import FtkError, ModelError
from ftk.models.checkpointing import enable_activation_checkpointing
from ftk.models.load import load_model
from ftk.models.locate import ModelPlace, locate
from ftk.models.scoring import ScoringModel
from ftk.recipe.schema import Recipe
from ftk.train.precision import FROZEN_DTYPES, resolve_precision, store_trained_in_float32
from ftk.tuning.full import Full

if TYPE_CHECKING:
    from accelerate import Accelerator

DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class TunedModel:
    """A model whose trained weights take gradients."""

    place: ModelPlace
    scoring: ScoringModel
    num_parameters: int
    num_trained: int
    router_loss_weight: float
    """What the model's own configuration asks for, in which a mixture of experts may be balanced."""

    @property
    def causal_lm(self) -> Any:
        return self.scoring.causal_lm

    def lines(self, *, packs: bool) -> list[str]:
        """What a person should know of the model; `packs` tells whether rows will hold several documents."""
        counts = f"{self.num_parameters:,} parameters, {self.num_trained:,} trained"
        lines = [f"model  {self.place.name}: {counts} ({self.num_trained / self.num_parameters:.2%})"]
        notes = (self.scoring.head_note, self.scoring.packing_note if packs else None)
        return lines + [f"model  {note}" for note in notes if note is not None]


def build_model(recipe: Recipe, accelerator: "Accelerator") -> TunedModel:
    """Load the model and apply quantization and tuning.

    Raises:
        ModelError: the model cannot be used, or a format or adapter does not go with it.
        RecipeError: a target module does not exist.
    """
    precision = resolve_precision(recipe.training.precision, accelerator.device)
    dtype = FROZEN_DTYPES[DTYPES.get(recipe.model.dtype, precision)]  # type: ignore[index]
    quantization = recipe.quantization.loading_config(FROZEN_DTYPES[precision]) if recipe.quantization else None
    is_full = isinstance(recipe.tuning, Full)
    model = load_model(
        recipe.model,
        # Weights that all move are float32 whatever the computation; loading them so spares a second copy.
        dtype=FROZEN_DTYPES["fp32"] if is_full else dtype,
        device=accelerator.device,
        quantization_config=quantization,
    )
    config = model.config
    model = _tuned(model, recipe)
    store_trained_in_float32(model)
    if recipe.training.activation_checkpointing:
        enable_activation_checkpointing(model)
    own_weight = float(getattr(config, "router_aux_loss_coef", 0.0) if _balances(config) else 0.0)
    asked = recipe.task.router_loss_weight
    weight = own_weight if asked is None else asked
    parameters = list(model.parameters())
    # What is proven must be what will run: flash attention takes float32 weights under autocast alone.
    with accelerator.autocast():
        scoring = ScoringModel(model, router=weight > 0)
    return TunedModel(
        place=locate(recipe.model),
        scoring=scoring,
        num_parameters=sum(_count(parameter) for parameter in parameters),
        num_trained=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        router_loss_weight=own_weight,
    )


def _tuned(model: Any, recipe: Recipe) -> Any:
    try:
        return recipe.tuning.apply(model)
    except FtkError:
        raise
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(
            f"tuning {recipe.tuning.name} cannot be applied to {recipe.model.id}: {error}", place="tuning"
        ) from error


def _balances(config: Any) -> bool:
    return bool(getattr(config, "output_router_logits", False))


def _count(parameter: nn.Parameter) -> int:
    """Weights in a parameter, those packed two to a byte included."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()
