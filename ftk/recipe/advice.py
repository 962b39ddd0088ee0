"""Advice is not an error: values outside customary ranges are told once, with the reason, and training goes on."""

from collections.abc import Iterator, Sequence

from ftk.data.formats import PREFERENCE_FORMATS
from ftk.objectives.preference.task import Preference
from ftk.recipe.schema import Recipe
from ftk.tuning.full import Full
from ftk.tuning.lora import Lora

Advice = tuple[str, str]
"""The dotted path it is about, and what to say."""

LEARNING_RATES = (1e-7, 1e-3)
PREFERENCE_LEARNING_RATES = {"full": (1e-7, 1e-5), "lora": (1e-7, 1e-4)}
"""Preferences ask for less than answers do: higher rates drive down the probability of both completions."""
OF_PAIRS = frozenset(PREFERENCE_FORMATS) - {"unpaired"}
"""Formats whose rows compare completions."""
RANKS = (4, 64)
ALPHA_TO_RANK = (1 / 8, 8.0)
FEW_ROWS = 1_000
"""Below this, full tuning tends to learn rows by heart."""
MANY_ROWS = 10_000
"""From here on, more than `MANY_EPOCHS` passes rarely pay."""
MANY_EPOCHS = 3


def advice(recipe: Recipe) -> list[Advice]:
    """What can be said before any data is read."""
    return [*_learning_rate(recipe), *_lora(recipe), *_held_out(recipe)]


def advice_on_rows(recipe: Recipe, num_rows: int, formats: Sequence[str] = ()) -> list[Advice]:
    """What can be said once the rows to train on are counted; `formats` is what each source was read as."""
    said = list(_pairs_taken_apart(recipe, formats))
    if recipe.task.rows == "texts":
        return said  # pieces of text are no rows
    if isinstance(recipe.tuning, Full) and num_rows < FEW_ROWS:
        said.append(
            (
                "tuning",
                f"tuning: full on {num_rows} rows: under {FEW_ROWS} it tends to learn them by heart and to forget the "
                "rest. tuning: lora is safer",
            )
        )
    if recipe.training.max_steps is None and recipe.training.epochs > MANY_EPOCHS and num_rows >= MANY_ROWS:
        said.append(
            (
                "training.epochs",
                f"training.epochs is {recipe.training.epochs:g} on {num_rows} rows: on a set that large more than "
                f"{MANY_EPOCHS} rarely pay, and overfit",
            )
        )
    return said


def _learning_rate(recipe: Recipe) -> Iterator[Advice]:
    rate = recipe.training.learning_rate
    # A loss with the likelihood of answers in it takes the place of supervised finetuning, at its rates.
    prefers = isinstance(recipe.task, Preference) and recipe.task.loss.customary_sft_weight == 0
    lowest, highest = PREFERENCE_LEARNING_RATES[recipe.tuning.name] if prefers else LEARNING_RATES
    # Plain gradient descent works at rates far above Adam's, whose steps are as long as the rate itself.
    if recipe.training.optimizer.name == "sgd" or lowest <= rate <= highest:
        return
    too_high = "higher ones make chosen answers less probable too" if prefers else "higher ones are often unsteady"
    reason = "lower ones barely move the model" if rate < lowest else too_high
    of = f" with task: preference and tuning: {recipe.tuning.name}" if prefers else ""
    yield (
        "training.learning_rate",
        f"training.learning_rate is {rate:g}; customary{of} is {lowest:g} to {highest:g}: {reason}",
    )


def _pairs_taken_apart(recipe: Recipe, formats: Sequence[str]) -> Iterator[Advice]:
    if recipe.task.rows == "unpaired" and OF_PAIRS & set(formats):
        yield (
            "task.loss",
            "task.loss: kto takes each pair apart into two completions, and which of them answers the same prompt "
            "better is not compared. Rows that are all pairs are better used by dpo",
        )


def _lora(recipe: Recipe) -> Iterator[Advice]:
    tuning = recipe.tuning
    if not isinstance(tuning, Lora):
        return
    if not RANKS[0] <= tuning.rank <= RANKS[1]:
        reason = "lower ones learn little" if tuning.rank < RANKS[0] else "higher ones cost memory and seldom pay"
        yield "tuning.rank", f"tuning.rank is {tuning.rank}; customary is {RANKS[0]} to {RANKS[1]}: {reason}"
    ratio = tuning.alpha / tuning.rank
    if not ALPHA_TO_RANK[0] <= ratio <= ALPHA_TO_RANK[1]:
        reason = "the update is hardly felt" if ratio < 1 else "the update is scaled up and often unsteady"
        yield (
            "tuning.alpha",
            f"tuning.alpha is {tuning.alpha:g} at rank {tuning.rank}; customary is 1:8 to 8:1: {reason}",
        )


def _held_out(recipe: Recipe) -> Iterator[Advice]:
    trained = {(source.source, source.subset, source.split, source.glob) for source in recipe.data.train}
    for index, source in enumerate(recipe.data.eval):
        if (source.source, source.subset, source.split, source.glob) in trained:
            yield (
                f"data.eval.{index}",
                f"data.eval.{index} is also trained on: its figures will tell what was learned by heart",
            )
