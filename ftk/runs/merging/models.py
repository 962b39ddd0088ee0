"""`ftk merge config.yaml`: several models into one, tensor by tensor."""

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ftk.core.atomic import atomic_folder, remove_leftovers
from ftk.core.errors import RunError
from ftk.merging.configuration import Merge, ModelName
from ftk.merging.layers import HEADS, with_layers
from ftk.merging.merge import merge_tensors
from ftk.merging.method import Method
from ftk.merging.mixture import PROMPTED, Mixture
from ftk.merging.open_model import OpenModel, PlannedTensor
from ftk.merging.plan import Planner
from ftk.merging.stream import ShardWriter
from ftk.recipe.merge_file import load_merge
from ftk.recipe.merge_resolved import resolved_merge
from ftk.recipe.moe_file import resolved_mixture
from ftk.runs.merging.card import models_card
from ftk.runs.merging.chat_template import chosen_template, write_chat_template
from ftk.runs.merging.companions import GENERATION_CONFIG, copy_companions, first_with
from ftk.runs.merging.configuration import merged_config, most_common_dtype, write_config
from ftk.runs.merging.family import strangers
from ftk.runs.merging.hashes import Hashes
from ftk.runs.merging.output import SHARD_BYTES, local_folders, require_free, require_space
from ftk.runs.merging.plan_report import PlanReport, plan_report
from ftk.runs.merging.sources import Fold, MergeSource, folding, open_source
from ftk.runs.merging.tokenizer import MatchedTokenizer, match_tokenizers


@dataclass(frozen=True)
class _Opened:
    """A merge whose models are found and whose tensors are planned."""

    merge: Merge | Mixture
    sources: dict[ModelName, MergeSource]
    planned: list[PlannedTensor]
    layers: list[tuple[OpenModel, int]] | None
    tokenizer: MatchedTokenizer | None
    chat_template: str | None
    config: Mapping[str, Any] | None = None
    """Of the output, where it is of another architecture than the first model."""

    @property
    def first(self) -> ModelName:
        """The model whose configuration the output takes."""
        return self.merge.models()[0]

    @property
    def models(self) -> dict[ModelName, OpenModel]:
        return {name: source.model for name, source in self.sources.items()}


def plan_merge(path: str, *, seed: int | None = None) -> PlanReport:
    """What a merge would read and write, without doing it.

    Raises:
        RecipeError: the file is wrong.
        ModelError: a model is not to be had, is broken, or does not fit the others.
    """
    opened = _open(_loaded(path, seed), fold=None)
    loaded = opened.first if _listens(opened.merge) else None
    return plan_report(
        opened.planned,
        opened.merge.name,
        list(opened.models.values()),
        loaded_bytes=0 if loaded is None else opened.models[loaded].checkpoint.num_bytes,
    )


def merge_models(
    path: str,
    out: Path,
    *,
    seed: int | None = None,
    shard_bytes: int = SHARD_BYTES,
    hashes: Hashes,
    tell: Callable[[str], None] = lambda sentence: None,
    on_tensor: Callable[[int, int], None] = lambda number, total: None,
) -> dict[str, Any]:
    """Merge models as a file says, into a folder that appears when it is complete.

    Args:
        path: the file.
        out: the folder, which must not exist.
        seed: in place of the file's.
        shard_bytes: largest file of weights.
        hashes: computes those of the sources.
        tell: told what a person should know.
        on_tensor: told how many tensors of how many are merged.

    Raises:
        RecipeError: the file is wrong, or `out` cannot be written.
        ModelError: a model is not to be had, is broken, or does not fit the others.
        RunError: the merge came to nothing: a result that is not finite, a disk that is full.
    """
    started = time.monotonic()
    merge = _loaded(path, seed)
    require_free(out, local_folders({f"the model {name}": name.id for name in merge.models()}))
    remove_leftovers(out.parent, out.name)
    _require_room_to_fold(merge, out)
    with ExitStack() as stack:
        opened = _open(merge, fold=folding(out, stack))
        require_free(out, _read_folders(opened))
        num_bytes = sum(one.spec.num_bytes for one in opened.planned)
        require_space(out, num_bytes)
        warnings = strangers(list(opened.models.values()), opened.first)
        method, more = _method(opened)
        warnings += more
        for warning in warnings:
            tell(warning)
        try:
            _write(opened, out, hashes, method, shard_bytes=shard_bytes, warnings=warnings, on_tensor=on_tensor)
        except OSError as error:
            raise RunError(f"{out} cannot be written: {error.strerror or error}. Nothing is left of it") from error
    return {
        "output": str(out),
        "method": opened.merge.name,
        "num_tensors": len(opened.planned),
        "input_bytes": sum(model.checkpoint.num_bytes for model in opened.models.values()),
        "output_bytes": num_bytes,
        "warnings": warnings,
        "seconds": round(time.monotonic() - started, 3),
    }


def _require_room_to_fold(merge: Merge | Mixture, out: Path) -> None:
    """Make sure of room for the models that adapters are folded into first, and for the output beside them."""
    sources = [open_source(name, fold=None) for name in merge.models()]
    folded = [source.model.checkpoint.num_bytes for source in sources if source.adapter_folder is not None]
    if folded:
        planned = _open(merge, fold=None).planned
        require_space(out, sum(folded) + sum(one.spec.num_bytes for one in planned))


def _read_folders(opened: _Opened) -> dict[str, Path]:
    found = {f"the model {name}": source.place.folder for name, source in opened.sources.items()}
    for name, source in opened.sources.items():
        if source.adapter_folder is not None:
            found[f"the adapter of {name}"] = source.adapter_folder
    return found


def _loaded(path: str, seed: int | None) -> Merge | Mixture:
    merge = load_merge(path)
    return merge if seed is None else replace(merge, seed=seed)


def _open(merge: Merge | Mixture, *, fold: Fold | None) -> _Opened:
    sources = {name: open_source(name, fold=fold) for name in merge.models()}
    models = {name: source.model for name, source in sources.items()}
    if isinstance(merge, Mixture):
        from ftk.merging.moe_plan import plan_mixture
        from ftk.models.load import load_config
        from ftk.models.settings import ModelSettings

        config = load_config(ModelSettings(id=str(sources[merge.base].folder))).to_dict()
        mixture = plan_mixture(merge, models, config)
        return _Opened(merge, sources, mixture.tensors, None, None, None, mixture.config)
    tokenizer_folders = {name: source.tokenizer_folder for name, source in sources.items()}
    template = chosen_template(merge.chat_template, list(tokenizer_folders.values()))
    tokenizer = match_tokenizers(merge, models, tokenizer_folders)
    planner = Planner(merge, models)
    match = tokenizer.match if tokenizer is not None else None
    planned = planner.tensors(num_tokens=match.num_tokens if match is not None else None)
    return _Opened(merge, sources, planned, planner.layers, tokenizer, template)


def _listens(merge: Merge | Mixture) -> bool:
    """Whether a model is loaded whole, for its states at prompts."""
    return isinstance(merge, Mixture) and merge.gate_mode in PROMPTED and merge.gate_mode != "cheap_embed"


def _method(opened: _Opened) -> tuple[Method, list[str]]:
    """What merges tensors, and warnings about it."""
    if not isinstance(opened.merge, Mixture):
        return opened.merge.method, []
    from ftk.runs.merging.routers import mixing

    return mixing(opened.merge, opened.sources[opened.first], width=int((opened.config or {})["hidden_size"]))


def _write(
    opened: _Opened,
    out: Path,
    hashes: Hashes,
    method: Method,
    *,
    shard_bytes: int,
    warnings: list[str],
    on_tensor: Callable[[int, int], None],
) -> None:
    specs = {one.name: one.spec for one in opened.planned}
    tokenizer = opened.tokenizer
    # The hashes are computed beside the merge, which waits for the disk while they wait for the processor.
    for source in opened.sources.values():
        hashes.start(source.files)
    with atomic_folder(out) as unfinished:
        with ShardWriter(unfinished, specs, shard_bytes=shard_bytes) as writer:
            merge_tensors(
                opened.planned,
                method,
                writer,
                seed=opened.merge.seed,
                match=tokenizer.match if tokenizer is not None else None,
                models=opened.models,
                on_tensor=lambda number: on_tensor(number, len(specs)),
            )
        _write_companions(opened, unfinished)
        (unfinished / "README.md").write_text(_card(opened, out, hashes, warnings), encoding="utf-8")


def _write_companions(opened: _Opened, out: Path) -> None:
    """Configuration, tokenizer, chat template and generation settings."""
    first, tokenizer = opened.sources[opened.first], opened.tokenizer
    source = opened.sources[tokenizer.source] if tokenizer is not None else first
    copy_companions(
        first.folder,
        out,
        tokenizer=source.tokenizer_folder,
        generation=first_with(GENERATION_CONFIG, [source.tokenizer_folder, first.folder]),
    )
    if tokenizer is not None and tokenizer.rebuilt is not None:
        tokenizer.rebuilt.save_pretrained(out)
    write_config(out, _config(opened), original=first.folder)
    if opened.chat_template is not None:
        write_chat_template(out, opened.chat_template)


def _config(opened: _Opened) -> dict[str, Any]:
    """The first model's, or the mixture's, with what the merge changes."""
    config = opened.config if opened.config is not None else opened.models[opened.first].config
    if opened.layers is not None:
        config = with_layers(config, [(model.config, index) for model, index in opened.layers])
    tokens_of = opened.models[opened.tokenizer.source].config if opened.tokenizer is not None else None
    rows = [one.spec.shape[0] for one in opened.planned if one.has_tokens]
    return merged_config(
        config,
        dtype=most_common_dtype(one.spec for one in opened.planned),
        num_tokens=rows[0] if rows and opened.tokenizer is not None else None,
        untied=bool(config.get("tie_word_embeddings")) and any(HEADS.search(one.name) for one in opened.planned),
        tokens_of=tokens_of,
    )


def _card(opened: _Opened, out: Path, hashes: Hashes, warnings: list[str]) -> str:
    return models_card(
        out.name,
        opened.merge.name,
        resolved_mixture(opened.merge) if isinstance(opened.merge, Mixture) else resolved_merge(opened.merge),
        {str(name): source.place for name, source in opened.sources.items()},
        {str(name): hashes.of(source.files) for name, source in opened.sources.items()},
        warnings=warnings,
    )
