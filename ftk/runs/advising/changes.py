"""What may be changed in a recipe so that it takes less memory, what each change costs, and who says so."""

from collections.abc import Iterator

from ftk.memory.head import budget_of
from ftk.recipe.advice import LEARNING_RATES
from ftk.recipe.schema import Recipe
from ftk.runs.advising.change import Change, Harm, Ladder
from ftk.runs.advising.devices import devices
from ftk.runs.estimate import Question
from ftk.tuning.lora import Lora

BUSY_TOKENS = 300
"""Tokens of a forward pass from which on a GPU computes rather than reads weights.

A 16-bit weight is 2 bytes and takes 2 operations a token, so that reading and computing take the same time where the
tokens are as many as the operations that the GPU makes while it reads a byte: 156 on an A100 (312 TFLOPS, 2.0 TB/s),
164 on an RTX 4090 (165 TFLOPS, 1.0 TB/s), 295 on an H100 (989 TFLOPS, 3.35 TB/s). Source: Williams et al. 2009,
"Roofline", and the makers' data sheets."""
UNPACKING_BYTES = 2.5
"""Bytes that are moved to make a 16-bit weight of one in four bits: half a byte is read, two are written."""
SMALL_CHUNK = 256
"""Tokens of the loss at once, below which a GPU would wait for the head's weights (`BUSY_TOKENS`)."""
LOWEST_RANK = 4
"""Lower ones learn little; the lowest that `ftk recipe validate` calls customary."""
LORA_TO_FULL_RATE = 10
"""Learning rate of LoRA in times of that of full tuning. Source: Schulman et al. 2025, "LoRA Without Regret"."""


def ladders(recipe: Recipe, *, on_gpu: bool, more_devices: bool = True) -> dict[str, Ladder]:
    """In which directions a recipe can be changed, and how far.

    Each step takes less memory than the one before, and so does offloading on as many devices. `more_devices` adds some
    to those that the recipe has.
    """
    found = {
        "rows": _micro_batches(recipe),
        "checkpointing": _checkpointing(recipe),
        "loss_chunk": _loss_chunk(recipe) if on_gpu else (),
        "precision": _precision(recipe) if on_gpu else (),
        "optimizer": _optimizer(recipe),
        "devices": devices(recipe, more=more_devices) if on_gpu else (),
        "tuning": _tuning(recipe),
    }
    return {name: (None, *changes) for name, changes in found.items()}


def _micro_batches(recipe: Recipe) -> tuple[Change, ...]:
    rows = recipe.training.micro_batch_size
    if rows == "auto":
        return ()  # it takes what fits, down to one row, as which it is estimated
    sizes = []
    while rows > 1:
        rows //= 2
        sizes.append(rows)
    return tuple(_micro_batch(size) for size in sizes)


def _micro_batch(size: int) -> Change:
    def idle(asked: Question) -> float:
        return max(1.0, BUSY_TOKENS / asked.setup.tokens)

    return Change(
        (f"training.micro_batch_size={size}",),
        lambda recipe: _training(recipe, micro_batch_size=size),
        Harm.NONE,
        lambda before, after: idle(after) / idle(before),
        f"the same result in smaller portions; slower only below {BUSY_TOKENS} tokens a pass (roofline: an H100 makes "
        "295 operations while it reads a byte)",
    )


def _checkpointing(recipe: Recipe) -> tuple[Change, ...]:
    if recipe.training.activation_checkpointing:
        return ()

    def slowdown(before: Question, after: Question) -> float:
        # A forward pass is one unit; so are the gradients of activations, and those of weights where they are trained.
        units = 2.0 if after.setup.adapter is not None else 3.0
        return (units + 1.0) / units

    return (
        Change(
            ("training.activation_checkpointing=true",),
            lambda recipe: _training(recipe, activation_checkpointing=True),
            Harm.NONE,
            slowdown,
            "the same result; each forward pass is made twice (Chen et al. 2016, arXiv:1604.06174): 4 passes for 3, "
            "or 3 for 2 where most weights are frozen",
        ),
    )


def _loss_chunk(recipe: Recipe) -> tuple[Change, ...]:
    now = recipe.training.loss_chunk
    if now != "auto" and now <= SMALL_CHUNK:
        return ()

    def slowdown(before: Question, after: Question) -> float:
        head = before.numbers.weights.head
        if head is None or before.setup.adapter is not None:
            return 1.0  # its logits are never kept
        logits = 4 * head.out_features * before.setup.scored
        is_kept = logits <= budget_of(before.setup, head.out_features).kept_bytes
        # The head's product is made a fourth time, beside three of every weight.
        return 1.0 + is_kept * head.num_weights / (3 * before.numbers.weights.active)

    return (
        Change(
            (f"training.loss_chunk={SMALL_CHUNK}",),
            lambda recipe: _training(recipe, loss_chunk=SMALL_CHUNK),
            Harm.NONE,
            slowdown,
            "the same result with logits of fewer tokens at once; of a trained head they are computed again in the "
            "backward pass: a fourth product for three",
        ),
    )


def _precision(recipe: Recipe) -> tuple[Change, ...]:
    if recipe.training.precision != "fp32":
        return ()
    return (
        Change(
            ("training.precision=bf16",),
            lambda recipe: _training(recipe, precision="bf16"),
            Harm.NEARLY_NONE,
            lambda before, after: 0.5,
            "trained weights stay in 32 bits; at least twice as fast (data sheets: an A100 makes 312 TFLOPS of bf16 "
            "and 19.5 of fp32)",
        ),
    )


def _optimizer(recipe: Recipe) -> tuple[Change, ...]:
    if recipe.training.optimizer.name != "adamw":
        return ()
    # Only what differs between the two is said: betas and epsilon of the recipe stay.
    return (
        Change(
            ("training.optimizer.name=adamw_8bit", *_kept_settings(recipe)),
            _with_eight_bits,
            Harm.NEARLY_NONE,
            lambda before, after: 1.0,
            "states in eight bits train to the same figures, at the same speed or faster (Dettmers et al. 2022, "
            "arXiv:2110.02861, table 1)",
        ),
    )


def _kept_settings(recipe: Recipe) -> Iterator[str]:
    optimizer = recipe.training.optimizer
    for name in optimizer.model_fields_set - {"name"}:
        value = getattr(optimizer, name)
        yield f"training.optimizer.{name}={list(value) if isinstance(value, tuple) else value}"


def _with_eight_bits(recipe: Recipe) -> Recipe:
    from ftk.train.optimizers import AdamW8bit

    kept = recipe.training.optimizer.model_dump(exclude={"name"}, exclude_unset=True)
    return _training(recipe, optimizer=AdamW8bit(**kept))


def _tuning(recipe: Recipe) -> tuple[Change, ...]:
    tuning = recipe.tuning
    if not isinstance(tuning, Lora):
        return (_lora_instead(recipe, quantized=False), _lora_instead(recipe, quantized=True))
    changes = [] if recipe.quantization is not None else [_quantized()]
    ranks = []
    rank = tuning.rank
    while rank // 2 >= LOWEST_RANK:
        rank //= 2
        ranks.append(rank)
    return (*changes, *(_lower_rank(tuning, one, quantized=bool(changes)) for one in ranks))


def _quantized() -> Change:
    return Change(
        ("quantization=nf4",),
        _with_nf4,
        Harm.COARSER_WEIGHTS,
        _unpacking,
        "QLoRA: LoRA over four-bit weights matched 16 bits in the figures of Dettmers et al. 2023 (arXiv:2305.14314); "
        "slower by what unpacking the weights moves in each pass",
    )


def _unpacking(before: Question, after: Question) -> float:
    # Bytes moved for each operation on a weight, which takes two operations a token.
    return 1.0 + UNPACKING_BYTES * BUSY_TOKENS / (2 * after.setup.tokens)


def _lower_rank(tuning: Lora, rank: int, *, quantized: bool) -> Change:
    alpha = tuning.alpha * rank / tuning.rank
    also = ("quantization=nf4",) if quantized else ()

    def apply(recipe: Recipe) -> Recipe:
        changed = _with(recipe, "tuning", rank=rank, alpha=alpha)
        return _with_nf4(changed) if quantized else changed

    return Change(
        (*also, f"tuning.rank={rank}", f"tuning.alpha={alpha:g}"),
        apply,
        Harm.LESS_ROOM_TO_LEARN,
        _unpacking if quantized else (lambda before, after: 1.0),
        f"rank {rank} instead of {tuning.rank} learns less of much data; alpha goes along, so that updates keep their "
        "strength",
    )


def _lora_instead(recipe: Recipe, *, quantized: bool) -> Change:
    now = recipe.training.learning_rate
    rate = float(f"{max(now, min(now * LORA_TO_FULL_RATE, LEARNING_RATES[1])):.1e}")

    def apply(recipe: Recipe) -> Recipe:
        changed = _training(recipe.model_copy(update={"tuning": Lora()}), learning_rate=rate)
        return _with_nf4(changed) if quantized else changed

    def slowdown(before: Question, after: Question) -> float:
        return 2 / 3 * (_unpacking(before, after) if quantized else 1.0)

    also = ("quantization=nf4",) if quantized else ()
    return Change(
        ("tuning=lora", *also, f"training.learning_rate={rate:.1e}"),
        apply,
        Harm.ANOTHER_METHOD,
        slowdown,
        "adapters instead of all weights: learns less and forgets less (Biderman et al. 2024, arXiv:2405.09673), at "
        f"{LORA_TO_FULL_RATE} times the learning rate (Schulman et al. 2025, LoRA Without Regret), 1e-3 at most; no "
        "gradients of weights, hence 2 passes for 3" + (", and unpacking of four-bit weights" if quantized else ""),
    )


def _with_nf4(recipe: Recipe) -> Recipe:
    from ftk.quantization.nf4 import Nf4

    return recipe.model_copy(update={"quantization": Nf4()})


def _training(recipe: Recipe, **values: object) -> Recipe:
    return _with(recipe, "training", **values)


def _with(recipe: Recipe, section: str, **values: object) -> Recipe:
    """The recipe with some values of a section; what goes together is for `violations` to say."""
    return recipe.model_copy(update={section: getattr(recipe, section).model_copy(update=values)})
