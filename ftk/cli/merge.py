"""`ftk merge`."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ftk.core.collection import uncollected
from ftk.core.tell import tell

if TYPE_CHECKING:
    from ftk.runs.merging.plan_report import PlanReport


def command(
    source: Annotated[
        str | None, typer.Argument(help="A merge's YAML file; or a run, adapter folder or hub id to fold.")
    ] = None,
    *,
    out: Annotated[str | None, typer.Option("--out", help="Folder of the result, which must not exist yet.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="For a file: only show what would be done.")] = False,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of what is random; goes before the file's.")
    ] = None,
    shard_size: Annotated[str, typer.Option("--shard-size", help="Largest file of weights, such as 5GB.")] = "5GB",
    base: Annotated[
        str | None, typer.Option("--base", help="Base of the adapters, if not the one that they name.")
    ] = None,
    adapter: Annotated[
        list[str] | None, typer.Option("--adapter", help="Adapter folder, run or hub id; may be given several times.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option("--weights", help="Strength of each adapter, such as 0.7,0.3; 1 by default.")
    ] = None,
    how: Annotated[
        str,
        typer.Option(
            "--how",
            help="How several become one: linear (weighted sum), concatenation (the same, ranks added), svd, ties, "
            "dare_linear or dare_ties.",
        ),
    ] = "linear",
    rank: Annotated[
        int | None, typer.Option("--rank", help="Rank of the result: of svd, and of ties or DARE with --as-adapter.")
    ] = None,
    density: Annotated[
        float | None, typer.Option("--density", help="Share of the changes that ties and DARE keep; 0.5 by default.")
    ] = None,
    base_precision: Annotated[
        str,
        typer.Option(
            "--base-precision",
            help="After training on a 4- or 8-bit base: dequantized (the weights it was trained on) or original (the "
            "16-bit ones).",
        ),
    ] = "dequantized",
    quantization: Annotated[
        str | None,
        typer.Option(
            "--quantization",
            help="How the base was stored in training, if no run says so: nf4 or fp4 (-single where not "
            "double quantized), int8.",
        ),
    ] = None,
    as_adapter: Annotated[bool, typer.Option("--as-adapter", help="Write one adapter instead of a model.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify/--no-verify", help="Compare logits with those of base and adapters.")
    ] = True,
    text: Annotated[str | None, typer.Option("--text", help="Text file to compare them on.")] = None,
) -> Mapping[str, object]:
    """Merge models as a YAML file says, or fold adapters into their base.

    The file is mergekit's: merge_method, models or slices, base_model, parameters; or base_model and experts for a
    mixture of experts. An adapter is folded tensor by tensor, and the result is compared with base and adapter before
    it appears.
    """
    from ftk.core.errors import RecipeError
    from ftk.memory.units import parse_bytes

    shard_bytes = parse_bytes(shard_size, place="--shard-size")
    of_folding = {
        "--base": base,
        "--base-precision": base_precision != "dequantized",
        "--quantization": quantization,
        "--no-verify": not verify,
        "--text": text,
    }
    of_adapters = {
        "--adapter": adapter,
        "--weights": weights,
        "--how": how != "linear",
        "--rank": rank,
        "--density": density,
        "--as-adapter": as_adapter,
    }
    is_file = source is not None and (source.endswith((".yaml", ".yml")) or Path(source).is_file())
    adapters = [*([source] if source is not None else []), *(adapter or ())]
    if not adapters:
        raise RecipeError(
            "name a merge's YAML file, or a run or adapter to fold: ftk merge RUN --out FOLDER", place="ftk merge"
        )
    if out is None and not (plan and is_file):
        raise RecipeError("say where the result goes: --out FOLDER", place="--out")
    if is_file:
        _require_none({**of_adapters, **of_folding}, "of adapters, and a file says all of its merge")
        return _models(str(source), out, plan=plan, seed=seed, shard_bytes=shard_bytes)
    if plan:
        raise RecipeError("--plan is of merges by a YAML file", place="--plan")
    if as_adapter:
        _require_none(of_folding, "of adapters folded into a base, which --as-adapter leaves apart")
    if text is not None and not verify:
        raise RecipeError("--text is what models are compared on, and --no-verify leaves that out", place="--text")

    with uncollected():
        from ftk.runs.merging.adapters import merge_adapters

    result = merge_adapters(
        base,
        adapters,
        _numbers(weights),
        out=Path(str(out)).expanduser(),
        how=how,  # type: ignore[arg-type]
        rank=rank,
        density=density,
        base_precision=base_precision,  # type: ignore[arg-type]
        quantization=quantization,  # type: ignore[arg-type]
        as_adapter=as_adapter,
        verify=verify,
        text=text,
        seed=seed or 0,
        shard_bytes=shard_bytes,
        tell=tell,
    )
    print(f"Wrote {result['output']} in {result['seconds']:.1f} s.")
    return result


def _require_none(flags: Mapping[str, object], why: str) -> None:
    from ftk.core.errors import RecipeError

    given = [name for name, value in flags.items() if value not in (None, False)]
    if given:
        raise RecipeError(f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} {why}", place=given[0])


def _models(path: str, out: str | None, *, plan: bool, seed: int | None, shard_bytes: int) -> Mapping[str, object]:
    if plan:
        from ftk.runs.merging.models import plan_merge

        report = plan_merge(path, seed=seed)
        _print_plan(report)
        return report.as_json()

    from ftk.core.freed_memory import keep_freed_memory
    from ftk.memory.units import shown
    from ftk.runs.merging.hashes import Hashes

    keep_freed_memory()
    with Hashes() as hashes, uncollected():
        # Before torch is imported, which leaves a processor idle.
        hashes.start_early(path)

        from ftk.runs.merging.models import merge_models

        result = merge_models(
            path,
            Path(str(out)).expanduser(),
            seed=seed,
            shard_bytes=shard_bytes,
            hashes=hashes,
            tell=tell,
            on_tensor=_progress,
        )
    print(
        f"Wrote {result['num_tensors']} tensors, {shown(result['output_bytes'])}, to {result['output']} "
        f"in {result['seconds']:.1f} s."
    )
    return result


def _print_plan(report: "PlanReport") -> None:
    from ftk.memory.units import shown

    for one in report.tensors:
        sources = " + ".join(_source(source, one["name"]) for source in one["sources"])
        base = f" on {one['base']}" if one["base"] else ""
        settings = "".join(f", {name} {value}" for name, value in one["settings"].items())
        whence = f" {sources}{base}" if sources else ""
        print(f"{one['name']} {one['dtype']} {one['shape']}: {one['method']}{whence}{settings}")
    print()
    for name, size in report.models.items():
        print(f"reads   {shown(size)} of {name}")
    print(f"writes  {shown(report.output_bytes)}: {len(report.tensors)} tensors, {report.num_parameters:,} parameters")
    print(f"memory  about {shown(report.peak_bytes)} at the largest tensor")


def _source(source: Mapping[str, Any], output: str) -> str:
    parameters = [f"{name} {value:g}" for name, value in source.items() if name not in ("model", "tensor")]
    tensor = f" {source['tensor']}" if source["tensor"] != output else ""
    return f"{source['model']}{tensor}" + (f" ({', '.join(parameters)})" if parameters else "")


def _numbers(text: str | None) -> list[float] | None:
    from ftk.core.errors import RecipeError

    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise RecipeError(f"{text!r} are no weights. Expected numbers such as 0.7,0.3", place="--weights") from error


def _progress(number: int, total: int) -> None:
    if sys.stderr.isatty():
        print(f"\r{number} of {total} tensors", end="\n" if number == total else "", file=sys.stderr, flush=True)
