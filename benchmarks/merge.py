"""`ftk merge` against mergekit: the same models and files, in turn, each in a process of its own.

    python -m venv mergekit && mergekit/bin/pip install mergekit         with the CPU build of torch
    .venv/bin/python benchmarks/merge.py --mergekit mergekit/bin/mergekit-yaml
    .venv/bin/python benchmarks/merge.py --memory          peak memory of 0.4B against 1.6B parameters, ftk alone

Three random models of 0.4B parameters in bfloat16, of one family, in shards of 300 MB. Seconds are of the whole
command, start-up included; ftk syncs its output to disk, which mergekit leaves to the system. Memory is the operating
system's peak of the whole process. A plain copy of one model, synced too, stands beside them.
"""

import argparse
import json
import multiprocessing
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WIDTH, HIDDEN, HEADS, VOCABULARY = 1024, 2816, 16, 32_000
LAYERS = {"0.4B": 26, "1.6B": 120}
SHARD_BYTES = 300_000_000
WEIGHTED = "models:\n" + "".join(
    f"  - {{model: {name}, parameters: {{weight: {weight}, density: 0.5}}}}\n"
    for name, weight in (("b", 0.6), ("c", 0.4))
)
CASES = {
    "linear": "merge_method: linear\nmodels:\n"
    + "".join(
        f"  - {{model: {name}, parameters: {{weight: {weight}}}}}\n"
        for name, weight in (("a", 0.5), ("b", 0.3), ("c", 0.2))
    ),
    "slerp": "merge_method: slerp\nbase_model: a\nmodels: [{model: a}, {model: b}]\nparameters: {t: [0.2, 0.8]}\n",
    "task_arithmetic": "merge_method: task_arithmetic\nbase_model: a\n" + WEIGHTED.replace(", density: 0.5", ""),
    "ties": "merge_method: ties\nbase_model: a\n" + WEIGHTED,
    "dare_ties": "merge_method: dare_ties\nbase_model: a\n" + WEIGHTED,
    "passthrough": "merge_method: passthrough\nslices:\n  - sources: [{model: a, layer_range: [0, 16]}]\n"
    "  - sources: [{model: b, layer_range: [10, 26]}]\n",
}
RANDOM = ("dare_ties",)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mergekit", help="mergekit-yaml of an environment of its own; without it ftk runs alone")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default=",".join(CASES), help="such as linear,ties")
    parser.add_argument("--folder", help="where models and outputs go, 10 GB; temporary by default")
    parser.add_argument("--memory", action="store_true", help="0.4B against 1.6B parameters; 25 GB of disk")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.folder or temporary).resolve()
        if arguments.memory:
            memory(folder)
        else:
            compare(folder, arguments)


def compare(folder: Path, arguments: argparse.Namespace) -> None:
    """Each case by each tool in turn, then a copy; a table at the end."""
    apart(prepare, folder / "0.4B", LAYERS["0.4B"])
    here = folder / "0.4B"
    tools = ["ftk", *(["mergekit"] if arguments.mergekit else [])]
    runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for number in range(1, arguments.rounds + 1):
        for case in arguments.cases.split(","):
            for tool in tools:
                result = run(tool, case, here, arguments)
                runs.setdefault((case, tool), []).append(result)
                print(f"round {number}  {case:<16} {tool:<9} {shown(result)}", flush=True)
            if number == 1 and len(tools) == 2:
                print(f"         {case:<16} ", end="", flush=True)
                apart(agreement, here, case)
        runs.setdefault(("copy", "copy"), []).append(copy(here))
        print(f"round {number}  plain copy of one model   {runs['copy', 'copy'][-1]['seconds']:6.2f} s", flush=True)
    report(runs, arguments.cases.split(","), tools)


def apart(work: Callable[..., None], *arguments: Any) -> None:
    """Do something in a process of its own: the peak of a process counts what its parent had when it was started."""
    process = multiprocessing.get_context("spawn").Process(target=work, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(process.exitcode)


def memory(folder: Path) -> None:
    """Peak memory at four times the layers."""
    for size, num_layers in LAYERS.items():
        apart(prepare, folder / size, num_layers)
        for case in ("linear", "ties"):
            result = run("ftk", case, folder / size, None)
            print(f"{size}  {case:<8} {shown(result)}", flush=True)
        shutil.rmtree(folder / size)


def prepare(folder: Path, num_layers: int) -> None:
    """Models a, b and c: one random base and noise of a tenth of it, with ftk://tiny's tokenizer."""
    import torch
    from safetensors.torch import save_file

    import ftk

    tiny = Path(ftk.__file__).parent / "models" / "tiny"
    for seed, name in enumerate("abc"):
        model = folder / name
        if (model / "model.safetensors.index.json").exists():
            continue
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir(parents=True)
        base, own = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed + 1)
        shard: dict[str, torch.Tensor] = {}
        weight_map: dict[str, str] = {}

        def flush(shard: dict[str, torch.Tensor], model: Path = model, weight_map: dict[str, str] = weight_map) -> None:
            file = f"model-{len(set(weight_map.values())) + 1:05d}.safetensors"
            save_file(shard, model / file, metadata={"format": "pt"})
            weight_map.update(dict.fromkeys(shard, file))
            shard.clear()

        for tensor_name, shape in shapes(num_layers):
            scale = 0.02 if len(shape) == 2 else 1.0
            tensor = scale * (torch.randn(shape, generator=base) + 0.1 * torch.randn(shape, generator=own))
            if shard and sum(one.nbytes for one in shard.values()) + tensor.nbytes // 2 > SHARD_BYTES:
                flush(shard)
            shard[tensor_name] = tensor.bfloat16()
        flush(shard)
        (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        (model / "config.json").write_text(json.dumps(config(num_layers)))
        for file in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            shutil.copy(tiny / file, model / file)
    os.sync()


def shapes(num_layers: int) -> list[tuple[str, tuple[int, ...]]]:
    """A Llama's tensors."""
    found: list[tuple[str, tuple[int, ...]]] = [("model.embed_tokens.weight", (VOCABULARY, WIDTH))]
    for layer in range(num_layers):
        prefix = f"model.layers.{layer}."
        found += [(f"{prefix}self_attn.{part}_proj.weight", (WIDTH, WIDTH)) for part in "qkvo"]
        found += [(f"{prefix}mlp.{part}_proj.weight", (HIDDEN, WIDTH)) for part in ("gate", "up")]
        found += [(f"{prefix}mlp.down_proj.weight", (WIDTH, HIDDEN))]
        found += [(f"{prefix}{part}_layernorm.weight", (WIDTH,)) for part in ("input", "post_attention")]
    return [*found, ("model.norm.weight", (WIDTH,)), ("lm_head.weight", (VOCABULARY, WIDTH))]


def config(num_layers: int) -> dict[str, Any]:
    """Its config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": WIDTH,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": num_layers,
        "num_attention_heads": HEADS,
        "num_key_value_heads": HEADS,
        "vocab_size": VOCABULARY,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def run(tool: str, case: str, folder: Path, arguments: argparse.Namespace | None) -> dict[str, Any]:
    """One merge: seconds of the whole command, of the merge alone where the tool says so, and peak memory."""
    file, out = folder / f"{case}.yaml", folder / f"out-{tool}-{case}"
    # Whole paths, since mergekit asks the hub about shorter ones.
    file.write_text(re.sub(r"(model: )([abc])\b", rf"\g<1>{folder}/\2", CASES[case]))
    shutil.rmtree(out, ignore_errors=True)
    if tool == "ftk":
        command = [
            sys.executable,
            "-m",
            "ftk",
            "merge",
            file.name,
            "--out",
            out.name,
            "--shard-size",
            "300MB",
            "--json",
        ]
    else:
        command = [str(Path(arguments.mergekit).resolve()), file.name, out.name, "--out-shard-size", "300M", "--quiet"]
    # What earlier runs left to write shall not be on this one's time.
    os.sync()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1]), "HF_HUB_OFFLINE": "1"}
    with (folder / "answer.txt").open("w+") as answer, (folder / "errors.txt").open("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=answer, stderr=errors, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        answer.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{errors.read()[-3000:]}")
        inner = json.loads(answer.read().splitlines()[-1])["seconds"] if tool == "ftk" else None
    return {"seconds": seconds, "inner_seconds": inner, "peak_bytes": usage.ru_maxrss * 1024}


def copy(folder: Path) -> dict[str, Any]:
    """A copy of one model's files that is synced to disk."""
    out = folder / "out-copy"
    shutil.rmtree(out, ignore_errors=True)
    os.sync()
    start = time.perf_counter()
    out.mkdir()
    for file in sorted((folder / "a").iterdir()):
        shutil.copyfile(file, out / file.name)
        descriptor = os.open(out / file.name, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    return {"seconds": time.perf_counter() - start}


def agreement(folder: Path, case: str) -> None:
    """Print how far the two tools' outputs are apart, in units of the last place of bfloat16 (2^-8 of the value)."""
    import torch

    from ftk.merging.stream import Checkpoint

    ours, theirs = (Checkpoint(folder / f"out-{tool}-{case}") for tool in ("ftk", "mergekit"))
    if ours.tensors.keys() != theirs.tensors.keys():
        print(f"different tensors: {sorted(ours.tensors.keys() ^ theirs.tensors.keys())[:3]}")
        return
    if case in RANDOM:
        print("the same tensors; their values are drawn at random")
        return
    differing, total, furthest = 0, 0, 0.0
    for name in ours.tensors:
        left, right = ours.read(name).float(), theirs.read(name).float()
        apart = (left - right).abs()
        differing += int((apart > 0).sum())
        total += apart.numel()
        furthest = max(furthest, float((apart / torch.maximum(left.abs(), right.abs()).clamp(min=1e-6)).max()) * 256)
    print(f"{differing / total:.4%} of the values differ, by at most {furthest:.2f} units of the last place")


def shown(result: dict[str, Any]) -> str:
    inner = f" ({result['inner_seconds']:.2f} s without start-up)" if result["inner_seconds"] else ""
    return f"{result['seconds']:6.2f} s, peak {result['peak_bytes'] / 1e9:.2f} GB{inner}"


def report(runs: dict[tuple[str, str], list[dict[str, Any]]], cases: list[str], tools: list[str]) -> None:
    """A table of medians, in Markdown."""

    def median(case: str, tool: str, key: str = "seconds") -> float:
        return statistics.median(one[key] for one in runs[case, tool])

    copied = median("copy", "copy")
    print("\n| case | ftk | mergekit | share of the time | ftk's peak | mergekit's peak | share of the memory |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for case in cases:
        seconds, peak = median(case, "ftk"), median(case, "ftk", "peak_bytes")
        cells = [case, f"{seconds:.2f} s", "", "", f"{peak / 1e9:.2f} GB", "", ""]
        if "mergekit" in tools:
            theirs, their_peak = median(case, "mergekit"), median(case, "mergekit", "peak_bytes")
            cells[2:4] = [f"{theirs:.2f} s", f"{seconds / theirs:.2f}"]
            cells[5:] = [f"{their_peak / 1e9:.2f} GB", f"{peak / their_peak:.2f}"]
        print(f"| {' | '.join(cells)} |")
    print(f"\nA plain copy of one model, synced: {copied:.2f} s.", end=" ")
    if "linear" in cases:
        inner = median("linear", "ftk", "inner_seconds")
        print(f"Linear without start-up: {inner:.2f} s, {inner / copied:.2f} times the copy.")


if __name__ == "__main__":
    main()
