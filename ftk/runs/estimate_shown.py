"""An estimate for a person: a table, a bar of its kinds, and where it fits."""

from collections.abc import Iterator, Mapping
from typing import Any

from ftk.memory.estimate import Estimate, MemoryBytes
from ftk.memory.units import shown

KINDS = {
    "weights": ("W", "blue"),
    "adapter": ("D", "cyan"),
    "gradients": ("G", "green"),
    "optimizer": ("O", "yellow"),
    "activations": ("A", "magenta"),
    "logits": ("L", "red"),
    "overhead": ("V", "white"),
}
"""Letter and colour of each kind in the bar."""
BAR_WIDTH = 60


def print_estimate(name: str, answer: Estimate) -> None:
    """Print what an estimate says to standard output."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    for line in _heading(name, answer):
        console.print(Text(line), soft_wrap=True)
    table = Table(box=None, pad_edge=False, show_header=True)
    for title in ("training", "bytes", "share"):
        table.add_column(title, justify="left" if title == "training" else "right")
    held = answer.per_device.bytes
    for kind, (letter, colour) in KINDS.items():
        num_bytes = getattr(held, kind)
        share = f"{num_bytes / max(1, held.total):.1%}"
        table.add_row(Text(f"{letter} {kind}", style=colour), shown(num_bytes), share)
        if kind == "activations":
            for part, size in answer.activations.items():
                if size:
                    table.add_row(Text(f"    {part}", style="dim"), Text(shown(size), style="dim"), "")
    table.add_row(Text("total", style="bold"), Text(shown(held.total), style="bold"), "")
    console.print(table)
    console.print(bar(held, width=min(BAR_WIDTH, console.width - len(KINDS))))
    for line in _below(answer):
        console.print(Text(line), soft_wrap=True)


def bar(held: MemoryBytes, *, width: int = BAR_WIDTH) -> Any:
    """Each kind by its letter, as long as its share; every kind that is there has a place."""
    from rich.text import Text

    found = Text()
    for kind, (letter, colour) in KINDS.items():
        num_bytes = getattr(held, kind)
        length = max(1, round(width * num_bytes / held.total)) if num_bytes else 0
        found.append(letter * length, style=f"{colour} reverse")
    return found


def _heading(name: str, answer: Estimate) -> Iterator[str]:
    share = answer.trainable_parameters / answer.parameters
    active = f", {answer.active_parameters:,} active" if answer.active_parameters != answer.parameters else ""
    yield f"{name}: {answer.parameters:,} parameters{active}, {answer.trainable_parameters:,} trained ({share:.2%})"
    each = answer.per_device
    where = f"each of {each.processes} devices ({each.strategy})" if each.processes > 1 else "one device"
    yield f"Answer: {answer.method.replace('_', ' ')}, on {where}"


def _below(answer: Estimate) -> Iterator[str]:
    if answer.peak_moment:
        yield f"The peak comes in {answer.peak_moment}."
    if answer.per_device.host:
        yield f"In the machine's own memory, for each device: {shown(answer.per_device.host)}"
    serving = answer.inference
    cache = "" if serving.kv_cache is None else f", keys and values {shown(serving.kv_cache)}"
    yield f"Inference: {shown(serving.total)} (weights {shown(serving.weights)}{cache})"
    if answer.rollout is not None:
        drawn = answer.rollout
        yield (
            f"Rollout, {drawn.answers} answers of {drawn.length:,} tokens with the prompt: {shown(drawn.total)} "
            f"(weights {shown(drawn.weights)}, optimizer {shown(drawn.optimizer)}, keys and values "
            f"{shown(drawn.kv_cache)}; without these {shown(drawn.scoring)} to score them)"
        )
    rule = answer.rule_of_thumb
    yield f"Rule of thumb, inference: {rule['inference_formula']} = {shown(rule['inference_bytes'])}"
    yield f"Rule of thumb, training: {rule['training_formula']} = {shown(rule['training_bytes'])}"
    yield from _fits(answer)
    if answer.work:
        yield _work(answer.work)
    for note in answer.notes:
        yield f"note   {note}"


def _fits(answer: Estimate) -> Iterator[str]:
    if not answer.gpus:
        return
    *_, largest = answer.gpus
    told = [f"{gpu['name']} (room {shown(gpu['room_bytes'])})" for gpu in answer.gpus]
    yield f"Fits: {', '.join(told[:6])}" + (f" … {largest['name']}" if len(told) > 6 else "")


def _work(work: Mapping[str, Any]) -> str:
    line = f"Work: {work['flops_per_token']:.3g} FLOPs a token, {work['flops']:.3g} for {work['tokens']:,} tokens"
    if "train_seconds" in work:
        line += f"; about {duration(work['train_seconds'])} on {work['gpu']} at {work['utilisation']:.0%} of its peak"
    if "dollars" in work:
        line += f", {work['dollars']:,.2f} at {work['dollars_per_hour']:g} an hour and device"
    return f"{line} (an estimate)"


def duration(seconds: float) -> str:
    """Seconds for a person: `40 s`, `3 min`, `5.2 h`, `3 days`."""
    for size, unit in ((86400 * 2, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / (86400 if unit == 'days' else size):.3g} {unit}"
    return f"{seconds:.2g} s"
