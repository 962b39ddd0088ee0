"""What each tensor is merged from, by which numbers; all that can be wrong is found before any is read."""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import torch

from ftk.core.config import Section
from ftk.core.errors import ModelError, RecipeError
from ftk.merging.configuration import Merge, ModelName, Slice
from ftk.merging.layers import EMBEDDINGS, HEADS
from ftk.merging.method import MergeError
from ftk.merging.open_model import Input, OpenModel, PlannedTensor
from ftk.merging.parameters import Parameters, first_resolved
from ftk.merging.safetensors_file import TensorSpec
from ftk.merging.slices import Draft, Drafter

MAX_SHOWN = 3
CHOOSE_TOKENS = (
    "Say which the output shall have: tokenizer_source: base (or the name of a model), or union for all tokens of all "
    "of them; rows of embeddings are then matched by token"
)


class Planner:
    """Plans the tensors of a merge of open models."""

    def __init__(self, merge: Merge, models: Mapping[ModelName, OpenModel]) -> None:
        self._models = models
        self._drafter = Drafter(merge, models)
        self._method: Any = merge.method

    @property
    def layers(self) -> list[tuple[OpenModel, int]] | None:
        """Where the layers of the output come from, once planned, if slices of them were asked for."""
        return self._drafter.layers

    def tensors(self, *, num_tokens: int | None = None) -> list[PlannedTensor]:
        """All tensors of the output, in its order.

        Args:
            num_tokens: rows of embeddings and head in the output where tokens are matched; None leaves them.

        Raises:
            ModelError: the models do not fit one another.
            RecipeError: layers that a model lacks, a parameter that is missing, weights that sum to zero.
        """
        for module in self._drafter.merge.modules:
            for one in module.slices:
                self._check_number(one)
        planned = [self._planned(draft, num_tokens) for draft in self._drafter.drafts()]
        _require_fitting(planned, num_tokens)
        return planned

    def _check_number(self, one: Slice) -> None:
        base = self._base(one)
        names = [source.model for source in one.sources]
        stray = one.base or self._drafter.merge.base
        if self._method.needs_base == "never" and stray is not None and stray not in self._drafter.merge.sources():
            raise RecipeError(
                f"{self._method.name} has no base, and base_model {stray} is not among the models. Leave it out, or "
                "list it among them",
                place=one.place,
            )
        if self._method.needs_base == "required" and base is None:
            raise RecipeError(
                f"{self._method.name} needs base_model: the model that the others were made from", place=one.place
            )
        if base is not None and base not in names:
            raise RecipeError(
                f"base_model {base} is not among the sources of this slice, so that its layers are not known. "
                "List it with its layer_range",
                place=one.place,
            )
        count = len(names) - (base is not None)
        lowest, highest = self._method.num_models
        if count < lowest or (highest is not None and count > highest):
            many = f" to {highest}" if highest is not None else " or more"
            expected = f"{lowest}{many if lowest != highest else ''} models{' beside base_model' if base else ''}"
            raise RecipeError(f"{self._method.name} merges {expected}, found {count}", place=one.place)

    def _base(self, one: Slice) -> ModelName | None:
        if self._method.needs_base == "never":
            return None
        return one.base or self._drafter.merge.base

    def _planned(self, draft: Draft, num_tokens: int | None) -> PlannedTensor:
        sources = draft.slice.sources
        inputs = [
            Input(self._models[source.model], str(name)) for source, name in zip(sources, draft.names, strict=True)
        ]
        base_name = self._base(draft.slice)
        at_base = next((at for at, source in enumerate(sources) if source.model == base_name), None)
        others = [at for at in range(len(sources)) if at != at_base]
        scopes = (draft.slice.parameters, draft.module.parameters, self._drafter.merge.parameters)
        common = reduce(torch.promote_types, (one.spec.dtype for one in inputs))
        dtype = self._drafter.merge.dtype or common
        out_dtype = self._drafter.merge.out_dtype or dtype
        has_tokens = _has_tokens(draft.name, inputs)
        spec = inputs[0].spec
        shape = spec.shape if num_tokens is None or not has_tokens else (num_tokens, *spec.shape[1:])
        planned = PlannedTensor(
            draft.name,
            TensorSpec(out_dtype if common.is_floating_point else spec.dtype, shape),
            tuple(inputs[at] for at in others),
            None if at_base is None else inputs[at_base],
            tuple(self._per_model(draft, at, str(draft.names[at]), scopes) for at in others),
            self._settings(draft, scopes),
            dtype if common.is_floating_point and torch.promote_types(dtype, common) != dtype else None,
            has_tokens,
        )
        try:
            self._method.check(
                parameters=planned.parameters, settings=planned.settings, has_base=planned.base is not None
            )
        except MergeError as error:
            raise RecipeError(f"{planned.name}: {error}", place=draft.slice.place) from error
        return planned

    def _per_model(self, draft: Draft, at: int, name: str, scopes: Sequence[Parameters]) -> dict[str, float]:
        source = draft.slice.sources[at]
        found: dict[str, float] = {}
        for parameter in self._method.per_model:
            value = first_resolved((source.parameters, *scopes), parameter.name, tensor=name, depth=draft.depth)
            if value is None and parameter.default is None:
                raise RecipeError(
                    f"{self._method.name} needs {parameter.name} for {source.model}, and there is none for {name}. "
                    f"Put parameters: {{{parameter.name}: ...}} beside the model, or into the outer parameters",
                    place=source.place,
                )
            found[parameter.name] = float(parameter.default if value is None else value)
        return found

    def _settings(self, draft: Draft, scopes: Sequence[Parameters]) -> dict[str, float | bool]:
        section: type[Section] = type(self._method)
        found: dict[str, float | bool] = {}
        for name, info in section.model_fields.items():
            key = info.alias or name
            value: Any = first_resolved(scopes, key, tensor=draft.name, depth=draft.depth) if name != "name" else None
            if value is None and info.is_required():
                raise RecipeError(
                    f"{self._method.name} needs parameters: {{{key}: ...}}, and there is none for {draft.name}",
                    place=draft.slice.place,
                )
            value = info.get_default(call_default_factory=True) if value is None else value
            if value is not None and name != "name":
                found[key] = round(value) if info.annotation is int else value
        return found


def _has_tokens(name: str, inputs: Sequence[Input]) -> bool:
    sizes = {one.model.config.get("vocab_size") for one in inputs}
    sizes |= {one.model.config.get("text_config", {}).get("vocab_size") for one in inputs}
    is_named = bool(EMBEDDINGS.search(name) or HEADS.search(name))
    return is_named and all(one.spec.shape and one.spec.shape[0] in sizes for one in inputs)


def _require_fitting(planned: Sequence[PlannedTensor], num_tokens: int | None) -> None:
    """Every tensor has one shape in all models, and embeddings and head the same number of tokens."""
    wrong: list[str] = []
    only_tokens = True
    for one in planned:
        reference = one.all_inputs[0]
        for other in one.all_inputs[1:]:
            start = 1 if one.has_tokens and num_tokens is not None else 0
            if other.spec.shape[start:] != reference.spec.shape[start:]:
                wrong.append(
                    f"{one.name} is {list(reference.spec.shape)} in {reference.model.name} and "
                    f"{list(other.spec.shape)} in {other.model.name}"
                )
                only_tokens = only_tokens and one.has_tokens and other.spec.shape[1:] == reference.spec.shape[1:]
                break
    if not wrong:
        return
    shown = "; ".join(wrong[:MAX_SHOWN]) + (f"; and {len(wrong) - MAX_SHOWN} more" if len(wrong) > MAX_SHOWN else "")
    if only_tokens:
        raise ModelError(f"the models have different vocabularies: {shown}. {CHOOSE_TOKENS}")
    raise ModelError(f"the models differ in shape: {shown}. Models to merge must be of one architecture and size")
