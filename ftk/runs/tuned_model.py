"""The model of a run: loaded and quantized where asked, then wrapped so that the chosen weights move."""

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from ftk.core.errors import FtkError, ModelError, RecipeError
from ftk.models.checkpointing import enable_activation_checkpointing
from ftk.models.load import load_model
from ftk.models.locate import ModelPlace, locate
from ftk.models.scoring import ScoringModel
from ftk.models.vocabulary import grow_vocabulary
from ftk.recipe.schema import Recipe
from ftk.train.precision import FROZEN_DTYPES, resolve_precision, store_trained_in_float32
from ftk.tuning.beside import trained_whole
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
    beside: tuple[str, ...] = ()
    """Modules that are trained whole beside adapters."""

    @property
    def causal_lm(self) -> Any:
        return self.scoring.causal_lm

    def lines(self, *, packs: bool) -> list[str]:
        """What a person should know of the model; `packs` tells whether rows will hold several documents."""
        counts = f"{self.num_parameters:,} parameters, {self.num_trained:,} trained"
        lines = [f"model  {self.place.name}: {counts} ({self.num_trained / self.num_parameters:.2%})"]
        if self.beside:
            ends = Counter(name.rsplit(".", 1)[-1] for name in self.beside)
            listed = ", ".join(f"{num} {name}" if num > 1 else name for name, num in ends.items())
            lines.append(f"model  trained whole beside the adapters: {listed}")
        notes = (self.scoring.head_note, self.scoring.packing_note if packs else None, self.scoring.tree_note)
        return lines + [f"model  {note}" for note in notes if note is not None]


@dataclass(frozen=True)
class NewTokens:
    """Tokens that the tokenizer has got, and the model does not know yet."""

    ids: tuple[int, ...]
    num_tokens: int
    """Of the tokenizer, the new ones included."""


@dataclass(frozen=True)
class StartModel:
    """The model as a run begins, before anything is added to it: what a reference is computed with."""

    place: ModelPlace
    causal_lm: Any
    new_token_ids: tuple[int, ...] = ()
    """Tokens that it has got rows for, which are not trained yet."""


def load_start(recipe: Recipe, accelerator: "Accelerator", *, new_tokens: NewTokens | None = None) -> StartModel:
    """Load the model, quantized where the recipe says so; of an adapter folder the base with its adapter.

    `new_tokens` get rows in it.

    Raises:
        ModelError: the model cannot be used, or a format does not go with it.
    """
    precision = resolve_precision(recipe.training.precision, accelerator.device)
    dtype = FROZEN_DTYPES[DTYPES.get(recipe.model.dtype, precision)]  # type: ignore[index]
    model: Any = load_model(
        recipe.model,
        # Weights that all move are float32 whatever the computation; loading them so spares a second copy.
        dtype=FROZEN_DTYPES["fp32"] if isinstance(recipe.tuning, Full) else dtype,
        device=accelerator.device,
        quantization_config=recipe.quantization.loading_config(FROZEN_DTYPES[precision])
        if recipe.quantization
        else None,
    )
    place = locate(recipe.model)
    if place.adapter_folder is not None and isinstance(recipe.tuning, Full):
        # All weights move and are written: the adapter becomes part of them.
        model = model.merge_and_unload()
    if new_tokens is not None:
        if recipe.tuning.name != "full" and recipe.parallel.strategy == "fsdp":
            raise RecipeError(
                f"tuning: {recipe.tuning.name} with new tokens and parallel.strategy: fsdp do not go together: rows of "
                "a sharded embedding cannot be trained apart. Use strategy: ddp",
                place="parallel.strategy",
            )
        grow_vocabulary(model, new_tokens.num_tokens, new_token_ids=new_tokens.ids)
    return StartModel(place, model, () if new_tokens is None else new_tokens.ids)


def tune(start: StartModel, recipe: Recipe, accelerator: "Accelerator") -> TunedModel:
    """Apply tuning to the model, which `start` no longer is from then on.

    Raises:
        ModelError: an adapter does not go with the model.
        RecipeError: a target module does not exist, or settings are not those of the adapter that goes on.
    """
    config = start.causal_lm.config
    model = _tuned(start, recipe)
    store_trained_in_float32(model)
    if recipe.training.activation_checkpointing:
        enable_activation_checkpointing(model)
    own_weight = float(getattr(config, "router_aux_loss_coef", 0.0) if _balances(config) else 0.0)
    asked = recipe.task.router_loss_weight
    weight = own_weight if asked is None else asked
    parameters = list(model.parameters())
    # What is proven must be what will run: flash attention takes float32 weights under autocast alone.
    with accelerator.autocast():
        scoring = ScoringModel(model, router=weight > 0, trees=recipe.task.rows == "pairs")
    return TunedModel(
        place=start.place,
        scoring=scoring,
        num_parameters=sum(_count(parameter) for parameter in parameters),
        num_trained=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        router_loss_weight=own_weight,
        beside=tuple(trained_whole(model)),
    )


def _tuned(start: StartModel, recipe: Recipe) -> Any:
    try:
        return recipe.tuning.apply(start.causal_lm, new_token_ids=start.new_token_ids)
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
