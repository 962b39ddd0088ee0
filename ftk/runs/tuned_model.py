"""The model of a run: loaded and quantized where asked, then wrapped so that the chosen weights move."""

from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ftk.core.errors import FtkError, ModelError, RecipeError
from ftk.core.positions import max_positions, rope_parts
from ftk.models.checkpointing import enable_activation_checkpointing
from ftk.models.extend import context_values, saved_context
from ftk.models.load import load_config, load_model
from ftk.models.locate import ModelPlace, locate
from ftk.models.scoring import ScoringModel
from ftk.models.shifted_sparse import enable_shifted_sparse_attention
from ftk.models.vocabulary import grow_vocabulary
from ftk.numerics.head import Budget
from ftk.recipe.schema import Recipe
from ftk.runs.whole_weights import used_before_shards
from ftk.train.precision import FROZEN_DTYPES, Precision, resolve_precision, store_trained_in_float32
from ftk.tuning.beside import trained_whole
from ftk.tuning.full import Full

if TYPE_CHECKING:
    from accelerate import Accelerator

LONGEST_WITHOUT_BOUND = 2048
"""Tokens of a row that shifted groups are a quarter of, where neither recipe nor model says how long rows are."""
DTYPES: dict[str, Precision] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class TunedModel:
    """A model whose trained weights take gradients."""

    place: ModelPlace
    scoring: ScoringModel
    num_parameters: int
    num_trained: int
    context: dict[str, Any] | None
    """Keys of config.json that tell its positions, where these are not its base's."""
    context_note: str | None
    """How much further it reads than its base, where the recipe extends it."""
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
        notes = (
            self.context_note,
            self.scoring.head_note,
            self.scoring.packing_note if packs else None,
            self.scoring.tree_note,
        )
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


def load_start(
    recipe: Recipe, accelerator: "Accelerator", *, new_tokens: NewTokens | None = None, fits_whole: bool = True
) -> StartModel:
    """Load the model, quantized where the recipe says so; of an adapter folder the base with its adapter.

    Args:
        recipe: says which model, and what will be done with it.
        accelerator: on whose device it will run.
        new_tokens: get rows in it.
        fits_whole: whether the device holds all of its weights; where it does not, those to be sharded wait on the CPU.

    Raises:
        ModelError: the model cannot be used or extended, or a format does not go with it.
        RecipeError: `model.context` does not fit the model.
    """
    _require_weights_for_learned_positions(recipe)
    precision = resolve_precision(recipe.training.precision, accelerator.device)
    model: Any = load_model(
        recipe.model,
        dtype=frozen_dtype(recipe, precision),
        device=accelerator.device if fits_whole else loading_device(recipe, accelerator),
        quantization_config=recipe.quantization.loading_config(FROZEN_DTYPES[precision])
        if recipe.quantization
        else None,
    )
    place = locate(recipe.model)
    if place.adapter_folder is not None and isinstance(recipe.tuning, Full):
        # All weights move and are written: the adapter becomes part of them.
        model = model.merge_and_unload()
    if new_tokens is not None:
        if recipe.tuning.name != "full" and recipe.parallel.shards:
            raise RecipeError(
                f"tuning: {recipe.tuning.name} with new tokens and parallel.strategy: {recipe.parallel.strategy} do "
                "not go together: rows of a sharded embedding cannot be trained apart. Use strategy: ddp",
                place="parallel.strategy",
            )
        grow_vocabulary(model, new_tokens.num_tokens, new_token_ids=new_tokens.ids)
    return StartModel(place, model, () if new_tokens is None else new_tokens.ids)


def loading_device(recipe: Recipe, accelerator: "Accelerator") -> torch.device:
    """Where a model is loaded to that the device does not hold whole: the CPU, if it will be sharded.

    What computes with the whole model before that keeps it on the device.
    """
    shards = recipe.parallel.shards and accelerator.num_processes > 1
    return torch.device("cpu") if shards and used_before_shards(recipe) is None else accelerator.device


def frozen_dtype(recipe: Recipe, precision: Precision) -> torch.dtype:
    """How weights are stored that are not quantized, before tuning makes those float32 that it trains."""
    # Weights that all move are float32 whatever the computation; loading them so spares a second copy.
    if isinstance(recipe.tuning, Full):
        return torch.float32
    return FROZEN_DTYPES[DTYPES.get(recipe.model.dtype, precision)]


def tune(
    start: StartModel,
    recipe: Recipe,
    accelerator: "Accelerator",
    *,
    budget: Budget | None = None,
    has_numbers: bool = True,
) -> TunedModel:
    """Apply tuning to the model, which `start` no longer is from then on.

    Args:
        start: the model as loaded.
        recipe: what is tuned, and what is learned.
        accelerator: under whose precision the model will compute.
        budget: how much memory logits may take, where the recipe does not say; by default what suits the device.
        has_numbers: False where weights are imagined, to follow what a step allocates.

    Raises:
        ModelError: an adapter does not go with the model.
        RecipeError: a target module does not exist, or settings are not those of the adapter that goes on.
    """
    config = start.causal_lm.config
    model = _tuned(start, recipe)
    store_trained_in_float32(model)
    sparse = recipe.model.context.shifted_sparse_attention if recipe.model.context is not None else None
    if sparse is not None:
        longest = recipe.data.max_length or max_positions(config) or LONGEST_WITHOUT_BOUND
        enable_shifted_sparse_attention(model, group=sparse.group or _even_quarter(longest))
    if recipe.training.activation_checkpointing:
        enable_activation_checkpointing(model)
    chunk = recipe.training.loss_chunk
    if chunk != "auto":
        budget = Budget.of_chunk(chunk, int(config.get_text_config().vocab_size))
    own_weight = float(getattr(config, "router_aux_loss_coef", 0.0) if _balances(config) else 0.0)
    asked = recipe.task.router_loss_weight
    weight = own_weight if asked is None else asked
    parameters = list(model.parameters())
    # What is proven must be what will run: flash attention takes float32 weights under autocast alone.
    with _autocast(model, recipe, accelerator):
        scoring = ScoringModel(
            model, budget=budget, router=weight > 0, trees=recipe.task.rows == "pairs", has_numbers=has_numbers
        )
    return TunedModel(
        place=start.place,
        scoring=scoring,
        context=_context(start.place, recipe, config),
        # Imagined weights have no files, from which the original would be known.
        context_note=_context_note(recipe, config) if has_numbers else None,
        num_parameters=sum(_count(parameter) for parameter in parameters),
        num_trained=sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
        router_loss_weight=own_weight,
        beside=tuple(trained_whole(model)),
    )


def _autocast(model: nn.Module, recipe: Recipe, accelerator: "Accelerator") -> AbstractContextManager[object]:
    """The run's autocast, on the device where the model lies: Accelerate knows the one on which it will run."""
    kind = next(model.parameters()).device.type
    if kind == accelerator.device.type:
        own: AbstractContextManager[object] = accelerator.autocast()
        return own
    precision = resolve_precision(recipe.training.precision, accelerator.device)
    return torch.autocast(kind, dtype=FROZEN_DTYPES[precision], enabled=precision != "fp32")


def _tuned(start: StartModel, recipe: Recipe) -> Any:
    try:
        return recipe.tuning.apply(start.causal_lm, new_token_ids=start.new_token_ids)
    except FtkError:
        raise
    except (ValueError, TypeError, NotImplementedError) as error:
        raise ModelError(
            f"tuning {recipe.tuning.name} cannot be applied to {recipe.model.id}: {error}", place="tuning"
        ) from error


def _context(place: ModelPlace, recipe: Recipe, config: Any) -> dict[str, Any] | None:
    """What must be kept with the tuned model of its positions; learned ones are weights, and kept as such."""
    if not rope_parts(config.get_text_config(decoder=True)):
        return None
    asked = recipe.model.context is not None and recipe.model.context.extends
    had = place.adapter_folder is not None and saved_context(place.adapter_folder) is not None
    return context_values(config) if asked or had else None


def _context_note(recipe: Recipe, config: Any) -> str | None:
    context = recipe.model.context
    original = load_config(recipe.model.model_copy(update={"context": None}))
    before = max_positions(original)
    if context is None or before == max_positions(config):
        return None
    way = context.way.name if rope_parts(config.get_text_config(decoder=True)) else "interpolation of its table"
    return f"{max_positions(config)} positions instead of {before}, by {way}"


def _even_quarter(num_tokens: int) -> int:
    return max(num_tokens // 8, 1) * 2


def _require_weights_for_learned_positions(recipe: Recipe) -> None:
    context = recipe.model.context
    if context is None or not context.extends or isinstance(recipe.tuning, Full):
        return
    if not rope_parts(load_config(recipe.model).get_text_config(decoder=True)):
        raise ModelError(
            f"the positions of {recipe.model.id} are learned, and the stretched table of them is a weight, which an "
            "adapter's folder does not hold. Take tuning: full, or a model with rotary positions",
            place="model.context",
        )


def _balances(config: Any) -> bool:
    return bool(getattr(config, "output_router_logits", False))


def _count(parameter: nn.Parameter) -> int:
    """Weights in a parameter, those packed two to a byte included."""
    state = getattr(parameter, "quant_state", None)
    return int(state.shape.numel()) if state is not None else parameter.numel()
