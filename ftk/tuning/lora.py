"""Low-rank adaptation: frozen weights, and beside each a trained product of two thin matrices.

Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1; rank-stabilised scaling: Kalajdzievski 2023 (arXiv:2312.03732);
weight decomposition: Liu et al. 2024 (arXiv:2402.09353), equation 5.
"""

import difflib
from collections.abc import Iterable, Sequence
from typing import Annotated, Literal, Protocol, cast

from pydantic import Field
from torch import Tensor, nn

from ftk.core.config import OneOrMore, Section
from ftk.core.errors import RecipeError
from ftk.tuning.beside import COPIES, Also, modules_beside, peft_ties, tie_copies
from ftk.tuning.continued import continue_lora
from ftk.tuning.new_tokens import refuse_new_tokens, token_rows

ALL_LINEAR = "all-linear"
SETTLED = {"rank", "alpha", "dropout", "rslora", "dora"}
"""Settings that an adapter was made with, apart from its modules."""

_OF_PEFT = (".lora_A.", ".lora_B.", COPIES, ".original_module")
"""What stands in the names of modules that are no target: parts of adapters, and what is trained whole."""


class _HasHead(Protocol):
    def get_output_embeddings(self) -> nn.Module | None: ...


class Lora(Section):
    """Train a low-rank update beside frozen weights: little memory, and a small file to ship."""

    name: Literal["lora"] = "lora"
    """`lora`: low-rank adapters."""
    rank: Annotated[int, Field(gt=0)] = 16
    """Width of the update. Higher learns more and costs more; customary: 4 to 64."""
    alpha: Annotated[float, Field(gt=0)] = 32
    """Strength of the update: it is scaled by alpha / rank (alpha / sqrt(rank) with `rslora`)."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapters' inputs that is zeroed while training, against overfitting on few rows."""
    target_modules: str | tuple[str, ...] = ALL_LINEAR
    """`all-linear` (the head apart, experts included), or names of modules such as `[q_proj, v_proj]`."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank), which keeps high ranks learning."""
    dora: bool = False
    """Train each weight's magnitude apart from its direction: often better at low rank, and slower."""
    also: Annotated[tuple[Also, ...], OneOrMore()] = ()
    """Modules trained whole beside the adapters, and saved with them: `embeddings`, `head`, `norms`.

    For domains with words of their own and for longer texts. Embeddings and head are as large as the vocabulary; where
    they are one weight, naming either trains both, and they stay one."""
    also_learning_rate: Annotated[float, Field(gt=0, lt=10)] | None = None
    """Peak learning rate of what `also` names; null is `training.learning_rate`. Customary: a tenth to a half of it."""

    def apply(self, model: nn.Module, *, new_token_ids: Sequence[int] = ()) -> nn.Module:
        """The model wrapped by PEFT, adapters added in float32, all else but `also` and rows of new tokens frozen.

        A model that brings an adapter goes on with that one.

        Raises:
            RecipeError: a target module does not exist (lists those that do), or the adapter cannot do what is asked.
        """
        from peft import LoraConfig, PeftModel, get_peft_model

        if isinstance(model, PeftModel):
            refuse_new_tokens(new_token_ids)
            wanted = self.model_dump(include=self.model_fields_set & SETTLED)
            named = "target_modules" in self.model_fields_set
            modules_wanted = set(self.modules_of(model.base_model.model)) if named else None
            beside_wanted = (
                set(modules_beside(model.base_model.model, self.also)) if "also" in self.model_fields_set else None
            )
            return cast(nn.Module, continue_lora(model, wanted, modules=modules_wanted, beside=beside_wanted))
        modules = self.modules_of(model)
        experts = expert_parameters(model) if self.target_modules == ALL_LINEAR else []
        if experts and (self.dropout or self.dora):
            raise RecipeError(
                f"adapters on the experts of this model ({', '.join(experts)}) take neither dropout nor dora. "
                "Set tuning.dropout to 0 and tuning.dora to false, or name target_modules outside the experts",
                place="tuning",
            )
        beside = modules_beside(model, self.also)
        both = sorted(set(beside) & set(modules))
        if both:
            raise RecipeError(
                f"{', '.join(both)} would get an adapter and be trained whole: name it in target_modules or in also",
                place="tuning.also",
            )
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=modules,
            target_parameters=experts or None,
            use_rslora=self.rslora,
            use_dora=self.dora,
            modules_to_save=beside or None,
            ensure_weight_tying=peft_ties(beside, model),
            trainable_token_indices=token_rows(model, new_token_ids, trained={*beside, *modules}),
            task_type="CAUSAL_LM",
        )
        adapted = get_peft_model(model, config)
        tie_copies(adapted.base_model.model)
        return cast(nn.Module, adapted)

    def own_learning_rate(self, parameter: str) -> float | None:
        """The peak learning rate of a trained parameter, by its name, where it is another than the run's."""
        return self.also_learning_rate if COPIES in parameter else None

    def modules_of(self, model: nn.Module) -> list[str]:
        """Full names of the linear modules that get an adapter.

        Raises:
            RecipeError: a name matches no linear module.
        """
        linear = linear_modules(model)
        if self.target_modules == ALL_LINEAR:
            head = cast(_HasHead, model).get_output_embeddings()
            return [name for name, module in linear.items() if module is not head]
        return self.named_among(linear)

    def named_among(self, linear: Iterable[str]) -> list[str]:
        """Those of a model's linear modules that `target_modules` names, by full name.

        Raises:
            RecipeError: a name matches none, or none is named.
        """
        modules = tuple(linear)
        wanted = (self.target_modules,) if isinstance(self.target_modules, str) else self.target_modules
        endings = sorted({name.rsplit(".", 1)[-1] for name in modules})
        if not wanted:
            raise RecipeError(
                f"tuning.target_modules is empty: no module would get an adapter. Name some of {', '.join(endings)}; "
                f"{ALL_LINEAR} takes them all",
                place="tuning.target_modules",
            )
        found: list[str] = []
        for ending in wanted:
            matches = [name for name in modules if name == ending or name.endswith(f".{ending}")]
            if not matches:
                near = difflib.get_close_matches(ending, endings, n=1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise RecipeError(
                    f"no linear module of this model is called {ending}.{hint} It has: {', '.join(endings)}; "
                    f"{ALL_LINEAR} takes them all",
                    place="tuning.target_modules",
                )
            found += [name for name in matches if name not in found]
        return found


def linear_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The matrix products of a model by full name, quantized ones and GPT-2's transposed ones included.

    One that has an adapter counts as itself, and its adapter not; one that is trained whole takes no adapter.
    """
    from transformers.pytorch_utils import Conv1D

    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | Conv1D):
            wrapped = name.removesuffix(".base_layer")
            if wrapped != name or not any(
                part in name for part in (".lora_A.", ".lora_B.", COPIES, ".original_module")
            ):
                found[wrapped] = module
    return found


def expert_parameters(model: nn.Module) -> list[str]:
    """Expert weights that are plain parameters, shape [experts, rows, columns], as PEFT's `target_parameters`.

    transformers 5 fuses the experts of a layer into such parameters, which a search for linear modules passes over.
    """
    names = {
        ".".join(name.split(".")[-2:]) for name, parameter in model.named_parameters() if _is_expert(name, parameter)
    }
    return sorted(names)


def _is_expert(name: str, parameter: Tensor) -> bool:
    return parameter.ndim == 3 and name.split(".")[-2] == "experts"
