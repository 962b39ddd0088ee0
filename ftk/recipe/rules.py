"""What must hold across sections: what does not go together is refused with the reason."""

from collections.abc import Callable, Iterator

from ftk.data.retrieval import Retrieval
from ftk.objectives.infill import Infill
from ftk.recipe.schema import Recipe

Violation = tuple[str, str]
"""The dotted path that is at fault, and the message."""


def violations(recipe: Recipe) -> list[Violation]:
    """Everything in the recipe that does not go together."""
    return [violation for rule in _RULES for violation in rule(recipe)]


def _quantization(recipe: Recipe) -> Iterator[Violation]:
    if recipe.quantization is None:
        return
    name = recipe.quantization.name
    if recipe.tuning.name == "full":
        yield (
            "quantization",
            f"quantization: {name} and tuning: full do not go together: quantized weights take no gradient. "
            "Use tuning: lora, or quantization: null",
        )
    if recipe.parallel.shards:
        yield (
            "quantization",
            f"quantization: {name} and parallel.strategy: {recipe.parallel.strategy} do not go together: packed "
            "integers cannot be sharded by rows. Use strategy: ddp, under which each process holds the quantized "
            "weights",
        )


def _precision(recipe: Recipe) -> Iterator[Violation]:
    model, training = recipe.model, recipe.training
    if recipe.tuning.name == "full" and model.dtype in ("bfloat16", "float16"):
        yield (
            "model.dtype",
            f"model.dtype: {model.dtype} and tuning: full do not go together: updates below the precision of a 16-bit "
            "weight vanish. Leave model.dtype at auto (trained weights stay float32) and set training.precision: bf16",
        )
    if training.precision == "fp16" and recipe.parallel.shards:
        yield (
            "training.precision",
            f"training.precision: fp16 and parallel.strategy: {recipe.parallel.strategy} do not go together: loss "
            "scaling would need the overflow of every shard. Use bf16, or strategy: ddp",
        )
    if model.attention.startswith("flash_attention") and training.precision == "fp32":
        yield (
            "model.attention",
            f"model.attention: {model.attention} and training.precision: fp32 do not go together: its kernels know "
            "16-bit numbers alone. Use attention: sdpa, or precision: bf16",
        )


def _optimizer(recipe: Recipe) -> Iterator[Violation]:
    strategy = recipe.parallel.strategy
    if recipe.training.optimizer.name == "adamw_8bit" and recipe.parallel.shards:
        yield (
            "training.optimizer",
            f"training.optimizer: adamw_8bit and parallel.strategy: {strategy} do not go together: states share "
            f"constants in blocks, which shards would cut. Use adamw, whose states {strategy} shards, or strategy: ddp",
        )


def _beside(recipe: Recipe) -> Iterator[Violation]:
    tuning = recipe.tuning
    if tuning.name == "lora" and tuning.also_learning_rate is not None and not tuning.also:
        yield (
            "tuning.also_learning_rate",
            "tuning.also_learning_rate is for what tuning.also names, and it names nothing. Name embeddings, head or "
            "norms in tuning.also, or leave it out",
        )


def _length(recipe: Recipe) -> Iterator[Violation]:
    tokens, longest = recipe.training.batch_tokens, recipe.data.max_length
    if tokens is not None and longest is not None and tokens < longest:
        yield (
            "training.batch_tokens",
            f"training.batch_tokens is {tokens}, less than one row of data.max_length {longest}. Raise the one or "
            "lower the other",
        )


def _context(recipe: Recipe) -> Iterator[Violation]:
    context = recipe.model.context
    if context is None:
        return
    longest, path = recipe.data.max_length, "model.context.shifted_sparse_attention"
    if context.shifted_sparse_attention is None:
        return
    if recipe.model.attention not in ("auto", "sdpa"):
        yield (
            path,
            f"{path} and model.attention: {recipe.model.attention} do not go together: it is an attention of its own "
            "kind, by sdpa. Leave model.attention at auto",
        )
    if recipe.task.needs_reference:
        yield (
            path,
            f"{path} and task: {recipe.task.name} with a reference do not go together: the reference is computed with "
            "full attention, and the model would differ from it before it has learned anything. Leave it out",
        )
    if recipe.training.compile:
        yield path, f"{path} and training.compile do not go together: the number of groups differs by the batch"
    group = context.shifted_sparse_attention.group
    if group is not None and longest is not None and group >= longest:
        yield (
            f"{path}.group",
            f"{path}.group is {group}, and rows have at most data.max_length {longest} tokens: it would change nothing "
            "or hide the start of a row alone. Take about a quarter of the length",
        )


def _weights(recipe: Recipe) -> Iterator[Violation]:
    given = [source.weight is not None for source in recipe.data.train]
    if any(given) and not all(given):
        index = given.index(False)
        yield (
            f"data.train.{index}",
            f"data.train.{index} has no weight while others have. Weights are shares of one whole: give every source "
            "one, or none",
        )
    for index, source in enumerate(recipe.data.eval):
        if source.weight is not None:
            yield (
                f"data.eval.{index}.weight",
                f"data.eval.{index}.weight does nothing: every held-out row counts once. Leave it out",
            )


def _pairs(recipe: Recipe) -> Iterator[Violation]:
    if recipe.task.rows not in ("conversations", "texts"):
        return
    for part, sources in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        for index, source in enumerate(sources):
            if "pairs" in source.model_fields_set and source.pairs != "all":
                path = f"data.{part}.{index}.pairs"
                yield (
                    path,
                    f"{path} says which answers are compared, and task: {recipe.task.name} compares none. Leave it "
                    "out, or take task: preference",
                )


def _texts(recipe: Recipe) -> Iterator[Violation]:
    data, is_text = recipe.data, recipe.task.rows == "texts"
    foreign = ("format", "system") if is_text else ("glob", "separator", "limit")
    for part, sources in (("train", data.train), ("eval", data.eval)):
        for index, source in enumerate(sources):
            path = f"data.{part}.{index}"
            for field in foreign:
                if getattr(source, field) not in (None, (), "auto"):
                    yield (
                        f"{path}.{field}",
                        f"{path}.{field} {_OF_TEXTS[field].format(task=recipe.task.name)}. Leave it out",
                    )
            if is_text and source.columns and set(source.columns) not in _parts_of(recipe, part):
                yield f"{path}.columns", f"{path}.columns: a text has one part, text, as in {{text: content}}"
    if not is_text:
        if data.overlap:
            yield "data.overlap", f"data.overlap {_OF_TEXTS['overlap']}. Leave it out"
        return
    if data.max_length is not None and data.overlap > data.max_length // 2:
        yield (
            "data.overlap",
            f"data.overlap is {data.overlap}, more than half of data.max_length {data.max_length}: most of each piece "
            "would be read without being learned. Lower it",
        )
    if "truncation" in data.model_fields_set and data.truncation != "error":
        yield "data.truncation", "data.truncation: texts are cut into pieces, and none of them is lost. Leave it out"
    for field in ("chat_template", "template_arguments"):
        if getattr(data, field):
            yield f"data.{field}", f"data.{field}: plain text has no turns to render. Leave it out"
    if recipe.evaluation.bias is not None:
        yield "evaluation.bias", "evaluation.bias compares answers, and plain text has none. Leave it out"
    if recipe.evaluation.metrics and not isinstance(recipe.task, Infill):
        yield (
            "evaluation.metrics",
            "evaluation.metrics judge answers, and plain text has none: perplexity and bits_per_byte are always "
            "measured. Leave them out",
        )


def _parts_of(recipe: Recipe, part: str) -> tuple[set[str], ...]:
    """Which parts columns may be named for."""
    holes = part == "eval" and isinstance(recipe.task, Infill)
    return ({"text"}, {"prefix", "suffix", "middle"}) if holes else ({"text"},)


def _infill(recipe: Recipe) -> Iterator[Violation]:
    task, settings = recipe.task, recipe.evaluation
    if not isinstance(task, Infill):
        for index, metric in enumerate(settings.metrics):
            if metric.name.startswith("infilling_"):
                yield (
                    f"evaluation.metrics.{index}",
                    f"evaluation.metrics: {metric.name} judges how holes are filled, and task: {task.name} fills none. "
                    "Leave it out, or take task: infill",
                )
        return
    if task.level == "context" and recipe.data.overlap:
        yield (
            "data.overlap",
            "data.overlap does not go with task.level: context, where each piece is rearranged within itself. Leave it "
            "out, or take level: document",
        )
    if any(settings.shots):
        yield "evaluation.shots", "evaluation.shots shows answered questions, and holes have none. Leave it out"


_OF_TEXTS = {
    "format": "tells how conversations are written, and task: {task} learns from plain text",
    "system": "is a message of a conversation, and task: {task} learns from plain text",
    "glob": "takes files as plain text, which task: cpt and task: infill learn from",
    "separator": "splits plain text, which task: cpt and task: infill learn from",
    "limit": "is of plain text, which task: cpt and task: infill learn from; "
    "of rows take a slice such as split: train[:1000]",
    "overlap": "is of pieces of plain text, which task: cpt and task: infill learn from",
}


def _retrieval(recipe: Recipe) -> Iterator[Violation]:
    if recipe.task.rows != "conversations" and recipe.data.retrieval != Retrieval():
        yield (
            "data.retrieval",
            f"data.retrieval is of questions with retrieved documents, which task: sft learns from, and task: "
            f"{recipe.task.name} reads none. Leave it out",
        )


def _evaluation(recipe: Recipe) -> Iterator[Violation]:
    settings = recipe.evaluation
    if not recipe.data.eval:
        for field in ("metrics", "early_stopping", "by", "max_rows", "by_position"):
            if getattr(settings, field):
                yield f"evaluation.{field}", f"evaluation.{field} needs held-out rows. Name them in data.eval"
    if settings.early_stopping is not None and settings.every is None:
        yield (
            "evaluation.early_stopping",
            "evaluation.early_stopping needs evaluations while training. Set evaluation.every, such as 1 epoch",
        )
    if any(settings.shots) and not settings.metrics:
        yield (
            "evaluation.shots",
            "evaluation.shots puts examples into the prompts of generated answers, and none are generated. Name "
            "evaluation.metrics, such as exact_match",
        )
    if any(settings.shots) and not settings.before:
        yield "evaluation.shots", "evaluation.shots is measured before training. Set evaluation.before: true"
    if settings.by is not None and not settings.metrics:
        yield "evaluation.by", "evaluation.by splits metrics of generated answers. Name evaluation.metrics"


_RULES: tuple[Callable[[Recipe], Iterator[Violation]], ...] = (
    _quantization,
    _precision,
    _optimizer,
    _beside,
    _length,
    _context,
    _weights,
    _pairs,
    _texts,
    _retrieval,
    _infill,
    _evaluation,
)
