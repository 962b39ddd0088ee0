"""The choices of a first recipe, each with its reason."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ftk.recipe.advice import FEW_ROWS, MANY_EPOCHS, MANY_ROWS
from ftk.runs.advising.data_look import DataLook

SMALL_MODEL = 100_000_000
"""Parameters below which adapters spare nothing worth having, and learning rates are higher."""
ROWS_FOR_FULL = 100_000
"""Rows from which all weights learn more than adapters of customary ranks hold.

Derivation: learned text holds about a bit a token (Schulman et al. 2025, "LoRA Without Regret"), and a weight about two
(Allen-Zhu and Li 2024, arXiv:2404.05405). Adapters of rank 16 on all matrices have 11 million weights in Llama 3.2 1B
and 42 million in Llama 3.1 8B: they are full after 22 and 84 million learned tokens, which so many rows have at 220 and
840 learned tokens each."""
LONGEST_FREE = 1024
"""Rows up to so many tokens are taken whole, whatever the others are."""
SHORT_ANSWER = 64
"""Tokens of an answer that is right or wrong as a whole."""
STEPS_AN_EPOCH = 50
"""Fewer steps than that leave little for the schedule to do."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One value of the recipe."""

    path: str
    value: Any
    reason: str | None = None


def choices(look: DataLook, *, num_parameters: int, positions: int | None, on_gpu: bool, model: str) -> list[Choice]:
    """Everything but what the memory has a say in."""
    tuning = "full" if _moves_all(look, num_parameters) else "lora"
    return [
        Choice("model", model),
        *_task(look),
        *_data(look, positions=positions, on_gpu=on_gpu),
        *_tuning(look, tuning, num_parameters),
        *_training(look, tuning, num_parameters),
        *_evaluation(look),
    ]


def _task(look: DataLook) -> Iterator[Choice]:
    yield Choice("task.name", look.kind, look.reason)
    if look.kind == "preference":
        reason = {
            "dpo": "pairs are compared with each other",
            "kto": "completions are good or bad by themselves, and nothing is compared",
        }
        yield Choice("task.loss", look.loss, reason[look.loss])
    if look.kind == "sft":
        yield Choice("task.prompt_loss_weight", 0.1, "a little of the questions too; 0 learns from answers alone")


def _data(look: DataLook, *, positions: int | None, on_gpu: bool) -> Iterator[Choice]:
    source = {key: value for key, value in look.source.model_dump(mode="json", exclude_unset=True).items() if value}
    held, reason = _held_out(look)
    yield Choice("data.train", {**source, "split": held[0]} if held else source, reason)
    if held:
        yield Choice("data.eval", {**source, "split": held[1]})
    length, whole, why = max_length(look, positions)
    yield Choice("data.max_length", length, why)
    if not look.is_text:
        yield Choice("data.truncation", "error" if whole else "drop", _truncation(whole))
    if look.kind != "preference" and on_gpu and look.quantile(0.5) * 4 <= length:
        yield Choice("data.packing", True, "half of the rows fill less than a quarter of the length: several share one")


def _truncation(whole: bool) -> str:
    return "no row is longer; one that comes later stops the run" if whole else "longer rows are left out and counted"


def max_length(look: DataLook, positions: int | None) -> tuple[int, bool, str]:
    """Tokens of a row, whether every row has room, and why."""
    most = min(positions or 2**31, 2**31)
    if look.is_text:
        length = min(most, 2048)
        return length, True, "texts are cut into pieces of this length, none of which is lost"
    longest, usual = max(look.lengths), look.quantile(0.99)
    counted = "" if look.is_counted else " (guessed at two characters a token, since there was no tokenizer)"
    told = f"half of the rows have up to {look.quantile(0.5):,} tokens, 99% up to {usual:,}, the longest {longest:,}"
    if not look.is_sample and longest <= most and (longest <= LONGEST_FREE or longest <= 1.5 * usual):
        return min(most, _rounded(longest)), True, f"{told}{counted}: all have room"
    return min(most, _rounded(usual)), False, f"{told}{counted}: memory is for the 99%"


def _rounded(length: int) -> int:
    return -(-length // 64) * 64


def _held_out(look: DataLook) -> tuple[tuple[str, str] | None, str]:
    rows = look.num_rows
    shuffled = "rows that belong together are better dealt by `ftk data split`"
    if look.is_text:
        if look.num_parts < 20:
            return None, "there are too few texts to hold any out: name some with --eval"
        return ("train[:90%]", "train[90%:]"), "the last tenth is held out: without it nobody knows whether it worked"
    if rows < 20:
        return None, f"{rows} rows are too few to hold any out: whether it worked is not known"
    if rows >= 50_000:
        return ("train[:-1000]", "train[-1000:]"), f"the last 1,000 rows are held out, which is enough; {shuffled}"
    share = 80 if rows < 200 else 90 if rows < 5_000 else 95
    return (
        (f"train[:{share}%]", f"train[{share}%:]"),
        f"of {rows:,} rows the last {100 - share}% are held out; {shuffled}",
    )


def _moves_all(look: DataLook, num_parameters: int) -> bool:
    if num_parameters < SMALL_MODEL:
        return look.kind != "preference" and (look.num_rows >= FEW_ROWS or look.is_text)
    return look.is_text or (look.kind == "sft" and look.num_rows >= ROWS_FOR_FULL)


def _tuning(look: DataLook, tuning: str, num_parameters: int) -> Iterator[Choice]:
    if tuning == "full":
        why = "a model this small has few weights" if num_parameters < SMALL_MODEL else "so much data fills adapters"
        yield Choice("tuning.name", "full", f"every weight: {why}")
        return
    reason = f"{look.num_rows:,} rows: adapters learn as much of them, in far less memory, and forget less"
    if look.kind == "preference":
        reason = "adapters hold the model to what it was, which preferences need"
    yield Choice("tuning.name", "lora", reason)
    rank = 64 if look.is_text else 16
    yield Choice("tuning.rank", rank, "4 to 64: more learns more, and costs more")
    yield Choice("tuning.alpha", 2 * rank, "customary: twice the rank")


def _training(look: DataLook, tuning: str, num_parameters: int) -> Iterator[Choice]:
    epochs, why = _epochs(look)
    yield Choice("training.epochs", epochs, why)
    most = 16 if look.kind == "preference" else 32
    size = 4
    while size < most and look.num_rows >= 2 * size * STEPS_AN_EPOCH:
        size *= 2
    if look.is_text:
        size = 8 if num_parameters < SMALL_MODEL else 32
    enough = f"{STEPS_AN_EPOCH} steps an epoch or more where the rows suffice"
    reason = "pieces an optimizer step" if look.is_text else f"rows an optimizer step: {enough}"
    yield Choice("training.batch_size", size, f"{reason}; whatever fits at once, the result is the same")
    rate, why = learning_rate(look.kind, tuning, num_parameters)
    yield Choice("training.learning_rate", rate, why)
    yield Choice("training.schedule", {"name": "cosine", "warmup_ratio": 0.03 if look.kind == "sft" else 0.1})


def learning_rate(kind: str, tuning: str, num_parameters: int) -> tuple[float, str]:
    """The peak learning rate and why."""
    if num_parameters < SMALL_MODEL:
        table = {"sft": (6e-4, 1e-3), "text": (1e-3, 1e-3), "preference": (1e-5, 1e-4)}
        why = "high, as befits a model this small"
    elif num_parameters < 30_000_000_000:
        table = {"sft": (1e-5, 2e-4), "text": (2e-5, 2e-4), "preference": (1e-6, 2e-5)}
        why = "customary for its size; adapters take ten times the rate of all weights"
    else:
        table = {"sft": (5e-6, 1e-4), "text": (1e-5, 1e-4), "preference": (5e-7, 1e-5)}
        why = "large models take lower rates"
    if kind == "preference":
        why = f"{why}; preferences take a tenth of what answers do"
    return table["text" if kind in ("cpt", "infill") else kind][tuning == "lora"], why


def _epochs(look: DataLook) -> tuple[int, str]:
    rows = look.num_rows
    if look.kind == "preference":
        epochs = 2 if rows < FEW_ROWS else 1
        return epochs, "more passes mostly make both answers less probable"
    if look.is_text:
        epochs = 4 if look.num_tokens < 1_000_000 else 2 if look.num_tokens < 100_000_000 else 1
        return epochs, f"{look.num_tokens:,} tokens; the fewer, the more often they are read"
    epochs = MANY_EPOCHS + 1 if rows < FEW_ROWS else MANY_EPOCHS if rows < MANY_ROWS else 2 if rows < 50_000 else 1
    return epochs, f"{rows:,} rows; the fewer, the more often they are read"


def _evaluation(look: DataLook) -> Iterator[Choice]:
    if _held_out(look)[0] is None:
        return
    yield Choice("evaluation.every", "1 epoch" if look.num_rows < MANY_ROWS else "0.25 epochs", "of the held-out loss")
    if look.kind == "infill":
        yield Choice("evaluation.metrics", ["infilling_exact_match"], "of held-out holes, before and after")
        yield Choice("evaluation.max_rows", 100, "generating takes time; the loss is over all held-out texts")
        yield Choice("evaluation.max_new_tokens", 64, "a middle that has not ended by then is cut")
    if look.kind != "sft":
        return
    longest = max(look.answers)
    if look.are_json:
        metrics = ["json_valid", "exact_match"]
        yield Choice("evaluation.metrics", metrics, "all answers are JSON; measured before and after")
    elif sorted(look.answers)[len(look.answers) // 2] <= SHORT_ANSWER:
        yield Choice("evaluation.metrics", ["exact_match"], "short answers are right or wrong; before and after")
    else:
        return
    yield Choice("evaluation.max_rows", 200, "generating takes time; the loss is over all held-out rows")
    yield Choice("evaluation.max_new_tokens", _rounded(longest), f"the longest answer has {longest:,} tokens")
