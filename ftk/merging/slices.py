"""Which tensors the output of a merge has, and which tensor of each source goes into each."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ftk.core.errors import ModelError, RecipeError
from ftk.merging.configuration import Merge, ModelName, Module, Slice, Source
from ftk.merging.layers import HEADS, is_first, layer_name, stacks
from ftk.merging.modules import in_module
from ftk.merging.open_model import OpenModel

MAX_NAMED = 3


@dataclass(frozen=True)
class Draft:
    """A tensor of the output before its numbers are known."""

    name: str
    depth: float
    names: tuple[str | None, ...]
    """In each source of the slice."""
    slice: Slice
    module: Module


class Drafter:
    """Goes through the slices of a merge of open models."""

    def __init__(self, merge: Merge, models: Mapping[ModelName, OpenModel]) -> None:
        self._models = models
        self.merge = _with_base(_upscaled(merge, models))
        """The same with its slices written out."""
        self.layers: list[tuple[OpenModel, int]] | None = None
        """Where the layers of the output come from, once its tensors were drafted, if slices of them were asked for."""

    def drafts(self) -> list[Draft]:
        """All tensors of the output, in its order.

        Raises:
            ModelError: a tensor is in one of the models only.
            RecipeError: a model lacks layers that were asked for, or the sources of a slice have different numbers.
        """
        drafts = [draft for module in self.merge.modules for draft in self._drafts(module)]
        _require_all(drafts)
        return drafts

    def _drafts(self, module: Module) -> Iterator[Draft]:
        if all(source.layers is None for one in module.slices for source in one.sources):
            yield from self._whole(module)
        else:
            yield from self._stacked(module)

    def _names(self, module: Module, model: OpenModel) -> list[str]:
        return in_module(module.name, model.names, [one.name for one in self.merge.modules])

    def _whole(self, module: Module) -> Iterator[Draft]:
        """Each tensor from those of the same name."""
        (one,) = module.slices
        models = [self._models[source.model] for source in one.sources]
        names_M = [self._names(module, model) for model in models]
        every = dict.fromkeys(name for names in names_M for name in names)
        counts = stacks(every)
        for name in _in_order(every):
            parts = layer_name(name)
            count = counts.get(parts.stack, 0) if parts is not None else 0
            depth = _depth(parts.index, count) if parts is not None and count else 0.0
            found = tuple(_found(model, name) for model in models)
            yield Draft(name, depth, found, one, module)

    def _stacked(self, module: Module) -> Iterator[Draft]:
        """Layers from slices; what comes before them from the first slice, what comes after from the last."""
        first, last = module.slices[0], module.slices[-1]
        stack = self._stack(module)
        yield from self._loose(module, first, stack, comes_first=True)
        layers: list[tuple[OpenModel, int]] = []
        for one in module.slices:
            ranges = [self._range(source, stack) for source in one.sources]
            lengths = {end - start for start, end in ranges}
            if len(lengths) != 1:
                shown = ", ".join(
                    f"{source.model} {list(span)}" for source, span in zip(one.sources, ranges, strict=True)
                )
                raise RecipeError(
                    f"the sources of one slice have different numbers of layers: {shown}", place=one.place
                )
            (count,) = lengths
            for offset in range(count):
                yield from self._layer(
                    module, one, stack, [start + offset for start, _ in ranges], len(layers), _depth(offset, count)
                )
                layers.append((self._models[one.sources[0].model], ranges[0][0] + offset))
        yield from self._loose(module, last, stack, comes_first=False)
        self._keep(module, stack, layers)

    def _keep(self, module: Module, stack: str, layers: list[tuple[OpenModel, int]]) -> None:
        model = layers[0][0]
        if stack == model.stack:
            self.layers = layers
        elif len(layers) != stacks(model.names)[stack]:
            raise ModelError(
                f"the configuration of {model.name} counts the layers of {model.stack}, so that {stack} must keep the "
                f"{stacks(model.names)[stack]} that it has, and the slices give {len(layers)}",
                place=module.place,
            )

    def _stack(self, module: Module) -> str:
        model = self._models[module.slices[0].sources[0].model]
        names = self._names(module, model)
        found = stacks(names)
        stack = next(iter(found)) if len(found) == 1 else model.stack
        if stack is None:
            raise ModelError(
                f"{model.name} has {len(found)} stacks of layers ({', '.join(found) or 'none'}), so that slices do not "
                "say which. Put them under modules",
                place=module.place,
            )
        return stack

    def _range(self, source: Source, stack: str) -> tuple[int, int]:
        model = self._models[source.model]
        count = stacks(model.names).get(stack, 0)
        start, end = source.layers or (0, count)
        if end > count:
            raise RecipeError(
                f"layer_range is [{start}, {end}], and {source.model} has {count} layers: 0 to {count - 1}. "
                f"The end is the layer after the last, at most {count}",
                place=source.place,
            )
        return start, end

    def _loose(self, module: Module, one: Slice, stack: str, *, comes_first: bool) -> Iterator[Draft]:
        models = [self._models[source.model] for source in one.sources]
        every = dict.fromkeys(name for model in models for name in self._names(module, model))
        for name in every:
            parts = layer_name(name)
            if (parts is None or parts.stack != stack) and is_first(name) == comes_first:
                yield Draft(name, 0.0, tuple(_found(model, name) for model in models), one, module)

    def _layer(
        self, module: Module, one: Slice, stack: str, indices: Sequence[int], index: int, depth: float
    ) -> Iterator[Draft]:
        models = [self._models[source.model] for source in one.sources]
        rests: dict[str, None] = {}
        for model, at in zip(models, indices, strict=True):
            prefix = f"{stack}{at}."
            rests.update(dict.fromkeys(name.removeprefix(prefix) for name in model.names if name.startswith(prefix)))
        for rest in rests:
            found = tuple(_found(model, f"{stack}{at}.{rest}") for model, at in zip(models, indices, strict=True))
            yield Draft(f"{stack}{index}.{rest}", depth, found, one, module)


def _upscaled(merge: Merge, models: Mapping[ModelName, OpenModel]) -> Merge:
    """Depth upscaling written out as slices."""
    if merge.upscale is None:
        return merge
    (module,) = merge.modules
    (source,) = module.slices[0].sources
    count = models[source.model].num_layers
    drop = count // 4 if merge.upscale.drop is None else merge.upscale.drop
    if not drop < count:
        raise RecipeError(
            f"drop is {drop}, and {source.model} has {count} layers: nothing would be left", place=source.place
        )
    slices = [Slice((replace(source, layers=layers),), source.place) for layers in ((0, count - drop), (drop, count))]
    return replace(merge, modules=(replace(module, slices=tuple(slices)),))


def _with_base(merge: Merge) -> Merge:
    """The base among the sources of whole models, where it is not listed there."""
    if merge.base is None or merge.method.needs_base == "never":
        return merge
    modules = []
    for module in merge.modules:
        first = module.slices[0]
        is_whole = all(source.layers is None for source in first.sources)
        if is_whole and merge.base not in [source.model for source in first.sources]:
            first = replace(first, sources=(*first.sources, Source(merge.base, first.place)))
        modules.append(replace(module, slices=(first, *module.slices[1:])))
    return replace(merge, modules=tuple(modules))


def _depth(index: int, count: int) -> float:
    """0 at the first layer, 1 at the last, and at an only one, as mergekit has it."""
    return index / (count - 1) if count > 1 else 1.0


def _found(model: OpenModel, name: str) -> str | None:
    """What a model calls a tensor; a tied head is its embedding, and a leading part of names may be missing."""
    if name in model.checkpoint.tensors and name in model.names:
        return name
    if HEADS.search(name) and name.endswith(".weight"):
        return model.embedding
    return None


def _in_order(names: Sequence[str] | Mapping[str, None]) -> list[str]:
    """Embeddings, layers by number, norms and heads."""

    def key(name: str) -> tuple[int, str, int]:
        parts = layer_name(name)
        if parts is None:
            return (0 if is_first(name) else 2, "", 0)
        return (1, parts.stack, parts.index)

    return sorted(names, key=key)


def _require_all(drafts: Sequence[Draft]) -> None:
    lacking = [draft for draft in drafts if None in draft.names]
    if not lacking:
        return
    first = lacking[0]
    sources = list(zip(first.slice.sources, first.names, strict=True))
    have = next(source.model for source, name in sources if name is not None)
    lack = next(source.model for source, name in sources if name is None)
    more = ", ".join(draft.name for draft in lacking[:MAX_NAMED])
    raise ModelError(
        f"{lack} and {have} differ in architecture: {len(lacking)} tensors are in one of the models only, such as "
        f"{more}, which {have} has and {lack} lacks. Models to merge must be of one architecture",
        place=first.slice.place,
    )
