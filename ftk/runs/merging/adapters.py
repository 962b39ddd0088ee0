"""`ftk merge` of adapters: folded into their base, or put together into one adapter; then proven."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from ftk.core.atomic import atomic_folder, remove_leftovers
from ftk.core.errors import RecipeError, RunError
from ftk.core.weight_files import weight_files
from ftk.merging.adapters.adapter import Adapter
from ftk.merging.adapters.base_weights import BasePrecision
from ftk.merging.adapters.combine import How, combined_adapter
from ftk.merging.adapters.fold import Fold
from ftk.merging.method import MergeError
from ftk.merging.safetensors_file import TensorSpec
from ftk.merging.stream import ShardWriter
from ftk.models.extend import with_context
from ftk.runs.merging.adapter_folder import write_adapter
from ftk.runs.merging.adapter_job import MergeJob, checked_job, require_one_of, text_of
from ftk.runs.merging.base import Base, QuantizationName, open_adapters, open_base
from ftk.runs.merging.card import adapters_card
from ftk.runs.merging.companions import GENERATION_CONFIG, TOKENIZER_CONFIG, copy_companions, first_with
from ftk.runs.merging.configuration import merged_config, most_common_dtype, write_config
from ftk.runs.merging.context import common_context
from ftk.runs.merging.hashes import Hashes
from ftk.runs.merging.output import SHARD_BYTES, local_folders, require_free, require_space


def merge_adapters(
    base: str | None,
    adapters: Sequence[str],
    weights: Sequence[float] | None = None,
    *,
    out: Path,
    how: How = "linear",
    rank: int | None = None,
    density: float | None = None,
    base_precision: BasePrecision = "dequantized",
    quantization: QuantizationName | None = None,
    as_adapter: bool = False,
    verify: bool = True,
    text: str | None = None,
    seed: int = 0,
    shard_bytes: int = SHARD_BYTES,
    trust_remote_code: bool = False,
    tell: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Fold adapters into their base, or put them together into one adapter.

    Args:
        base: folder, `ftk://` name or hub id; None for the one that the adapters name.
        adapters: folders, runs or hub ids.
        weights: strength of each adapter; None for 1 each.
        out: folder to write, which appears complete and proven, or not at all.
        how: how several become one; see `Combination`.
        rank: of `svd`, and of an adapter made by `ties` or DARE (by default the largest of theirs).
        density: share of each update's values that `ties` and DARE keep.
        base_precision: for a base that was in few bits in training: what that made of its weights, or the 16-bit ones.
        quantization: how the base was stored in training, for adapters that no ftk run made.
        as_adapter: whether the result is an adapter beside the base.
        verify: whether to load the base with the adapters, then the merged model, and compare what they say.
        text: file with what both are asked to score; None takes a text of ftk's own.
        seed: of what DARE drops.
        shard_bytes: largest file of weights.
        trust_remote_code: whether Python code that comes with the base may run.
        tell: is given sentences for a person.

    Returns:
        JSON values: what was written, how much changed, and the proof.

    Raises:
        RecipeError: weights, rank, density or the output folder are wrong.
        ModelError: the base or an adapter is not to be had, they do not fit, or an adapter cannot be folded.
        RunError: the proof failed, or the folder could not be written.
    """
    start = time.perf_counter()
    job = checked_job(adapters, weights, how, rank, density, seed, out, shard_bytes, as_adapter=as_adapter)
    require_one_of(base_precision, ("dequantized", "original"), "--base-precision")
    require_one_of(quantization, (None, *get_args(QuantizationName)), "--quantization")
    words = text_of(text)
    opened = open_adapters(job.names)
    named_base = base or str(opened[0].config.get("base_model_name_or_path") or "")
    require_free(out, {**_adapter_folders(job, opened), **local_folders({f"the base {named_base}": named_base})})
    try:
        with Hashes() as hashes:
            for adapter in opened:
                hashes.start(weight_files(adapter.folder))
            if as_adapter:
                result = _write_adapter(job, opened, hashes)
            else:
                found = open_base(
                    base,
                    opened,
                    precision=base_precision,
                    quantization=quantization,
                    trust_remote_code=trust_remote_code,
                )
                hashes.start(weight_files(found.place.folder))
                result = _fold(
                    job, found, opened, hashes, verify=verify, text=words, trust=trust_remote_code, tell=tell
                )
    except MergeError as error:
        raise RecipeError(f"{how}: {error}", place="--weights") from error
    except OSError as error:
        raise RunError(f"{out} cannot be written: {error.strerror or error}. Nothing is left of it") from error
    return {**result, "seconds": round(time.perf_counter() - start, 3)}


def _fold(
    job: MergeJob,
    base: Base,
    adapters: Sequence[Adapter],
    hashes: Hashes,
    *,
    verify: bool,
    text: str | None,
    trust: bool,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    combine = None if job.is_one_as_it_is else job.combination
    fold = Fold(base.weights, base.architecture, adapters, job.weights, combine)
    specs = fold.specs
    num_bytes = sum(spec.num_bytes for spec in specs.values())
    require_free(job.out, {f"the base {base.place.name}": base.place.folder, **_adapter_folders(job, adapters)})
    require_space(job.out, num_bytes)
    for alias in fold.untied:
        tell(f"{alias} is no longer tied to {fold.untied[alias]}: the adapter makes them different")
    proof: dict[str, Any] | None = None
    remove_leftovers(job.out.parent, job.out.name)
    with atomic_folder(job.out) as unfinished:
        _write_weights(fold, specs, unfinished, shard_bytes=job.shard_bytes)
        _write_companions(base, adapters, fold, unfinished)
        (unfinished / "README.md").write_text(_card(job, base, adapters, hashes), encoding="utf-8")
        if verify:
            from ftk.runs.merging.check import check, summary

            proof = check(
                unfinished,
                base,
                adapters,
                job.weights,
                combination=job.combination,
                stays_tied=not fold.untied,
                text=text,
                trust_remote_code=trust,
                out=job.out,
            )
            tell(summary(proof))
    return {
        "output": str(job.out),
        "base": base.place.name,
        "adapters": _listed(job, adapters),
        "how": job.combination.how,
        "base_precision": base.precision,
        "num_tensors": len(specs),
        "num_changed": fold.num_changed,
        "untied": sorted(fold.untied),
        "output_bytes": num_bytes,
        "proof": proof,
    }


def _write_weights(fold: Fold, specs: Mapping[str, TensorSpec], folder: Path, *, shard_bytes: int) -> None:
    with ShardWriter(folder, specs, shard_bytes=shard_bytes) as writer:
        for name in writer.names:
            writer.write(name, fold.tensor(name))


def _write_companions(base: Base, adapters: Sequence[Adapter], fold: Fold, folder: Path) -> None:
    """Configuration, tokenizer, chat template and generation settings; an adapter's, where one brings any."""
    folders = [*(adapter.folder for adapter in adapters), base.place.folder]
    copy_companions(
        base.place.folder,
        folder,
        tokenizer=first_with(TOKENIZER_CONFIG, folders),
        generation=first_with(GENERATION_CONFIG, folders),
    )
    in_few_bits = "quantization_config" in base.config
    config = merged_config(
        base.config,
        dtype=most_common_dtype(fold.specs.values()) if in_few_bits else None,
        num_tokens=_grown_vocabulary(base, fold),
        untied=bool(fold.untied),
    )
    context = common_context([adapter.folder for adapter in adapters])
    if context is not None:
        config = with_context(config, context)
    write_config(folder, config, original=base.place.folder)


def _grown_vocabulary(base: Base, fold: Fold) -> int | None:
    """Rows of the embedding, where an adapter brings more or fewer than the base has."""
    config = base.config
    before = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    for name, spec in fold.specs.items():
        old = base.weights.specs.get(name)
        if old is not None and len(spec.shape) == 2 and old.shape != spec.shape and old.shape[0] == before:
            return spec.shape[0]
    return None


def _write_adapter(job: MergeJob, adapters: Sequence[Adapter], hashes: Hashes) -> dict[str, Any]:
    require_free(job.out, _adapter_folders(job, adapters))
    config, tensors = combined_adapter(adapters, job.weights, job.combination)
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    require_space(job.out, num_bytes)
    remove_leftovers(job.out.parent, job.out.name)
    with atomic_folder(job.out) as unfinished:
        folders = [adapter.folder for adapter in adapters]
        write_adapter(unfinished, config, tensors, context=common_context(folders))
        copy_companions(
            folders[0],
            unfinished,
            tokenizer=first_with(TOKENIZER_CONFIG, folders),
            generation=first_with(GENERATION_CONFIG, folders),
        )
        (unfinished / "README.md").write_text(_card(job, None, adapters, hashes), encoding="utf-8")
    return {
        "output": str(job.out),
        "base": config["base_model_name_or_path"],
        "adapters": _listed(job, adapters),
        "how": job.combination.how,
        "rank": config["r"],
        "num_tensors": len(tensors),
        "output_bytes": num_bytes,
        "proof": None,
    }


def _listed(job: MergeJob, adapters: Sequence[Adapter]) -> list[dict[str, Any]]:
    return [
        {"name": name, "kind": adapter.kind, "weight": weight}
        for name, adapter, weight in zip(job.names, adapters, job.weights, strict=True)
    ]


def _adapter_folders(job: MergeJob, adapters: Sequence[Adapter]) -> dict[str, Path]:
    return {f"the adapter {name}": adapter.folder for name, adapter in zip(job.names, adapters, strict=True)}


def _card(job: MergeJob, base: Base | None, adapters: Sequence[Adapter], hashes: Hashes) -> str:
    """Without a base the result is an adapter."""
    folders = {name: adapter.folder for name, adapter in zip(job.names, adapters, strict=True)}
    if base is not None:
        folders = {base.place.name: base.place.folder, **folders}
    was_in_few_bits = base is not None and (base.was_quantized is not None or base.precision == "dequantized")
    return adapters_card(
        job.out.name,
        job.combination.how,
        base.place if base is not None else str(adapters[0].config.get("base_model_name_or_path")),
        [(one["name"], one["kind"], one["weight"]) for one in _listed(job, adapters)],
        {name: hashes.of(weight_files(folder)) for name, folder in folders.items()},
        is_adapter=base is None,
        base_precision=base.precision if base is not None and was_in_few_bits else None,
    )
