"""`ftk train`: data, model, reference, tuning, measure, loop, measure, report."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ftk.core.tell import tell
from ftk.core.types import Batch, Examples
from ftk.data.batches import TrainBatches
from ftk.data.text_report import TextReport
from ftk.recipe.load import LoadedRecipe
from ftk.recipe.schema import Recipe
from ftk.runs.bias import read_run_bias
from ftk.runs.environment import environment
from ftk.runs.figures import left_to_right_harm, sample_answer
from ftk.runs.folder import RunFolder, choose_folder
from ftk.runs.long_context import check_far, show_passkeys
from ftk.runs.measure import Measure, check_questions
from ftk.runs.memory_guard import compare_memory, expect_memory
from ftk.runs.out_of_memory import TRAIN_REMEDIES, out_of_memory_told
from ftk.runs.publish import Publisher, check_push, push_to_hub
from ftk.runs.quiet import quieten
from ftk.runs.reference import with_reference
from ftk.runs.report import result_object, sentences, write_report
from ftk.runs.summary import comparison, print_comparison, print_sample
from ftk.runs.training_data import TrainingData, read_training_data
from ftk.runs.trust import tell_of_code
from ftk.runs.tuned_model import TunedModel, load_start, tune
from ftk.train.checkpoint import Checkpoints, latest
from ftk.train.group import join_group, leave_group
from ftk.train.loop import FitResult, count_total_steps, fit
from ftk.train.observe import Observer
from ftk.train.optimizers import AdamW8bit
from ftk.train.own_rates import give_own_rates
from ftk.train.random_state import seed_everything
from ftk.train.rehearse import CPU_TOKENS, find_micro_batch_tokens
from ftk.train.shard import offload_note, spread, unwrapped
from ftk.train.signals import stopping_at_once
from ftk.train.step import Step
from ftk.train.trackers import check_trackers

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import nn


@stopping_at_once()
@out_of_memory_told(TRAIN_REMEDIES)
def finetune(loaded: LoadedRecipe, *, resume: bool = False, fresh: bool = False, force: bool = False) -> dict[str, Any]:
    """Train as a recipe says, in this process's group, and measure before and after; what `ftk train --json` prints.

    `force` goes on where the memory will not suffice by the estimate.

    Raises:
        FtkError: the input is wrong (nothing is written then), the environment lacks something, or the run failed.
    """
    recipe = loaded.recipe
    _check_services(recipe)
    quieten()
    accelerator = join_group(recipe.training.precision, strategy=recipe.parallel.strategy)
    if isinstance(recipe.training.optimizer, AdamW8bit):
        recipe.training.optimizer.check_device(accelerator.device)
    say = _voice(accelerator)
    tell_of_code(recipe.model, say)
    with accelerator.main_process_first():
        data = read_training_data(recipe)
    check_questions(recipe, data)
    bias = read_run_bias(recipe, data)
    check_far(recipe, data)
    expected = expect_memory(recipe, partial(_worst, loaded, data, accelerator), accelerator, say, force=force)
    start = load_start(recipe, accelerator, new_tokens=data.new_tokens, fits_whole=expected.fits_whole)
    data = with_reference(data, start, recipe, accelerator, say)
    # Adapters start from the same draws on every process.
    seed_everything(recipe.seed)
    tuned = tune(start, recipe, accelerator)
    with _run_folder(loaded, accelerator, resume=resume, fresh=fresh) as folder:
        note = offload_note(recipe.parallel.strategy, accelerator)
        for line in [*_about(folder, loaded, data, tuned), *([note] if note else [])]:
            say(line)
        measure = Measure(recipe, data, tuned, folder, accelerator, say, bias)
        model = spread(tuned.scoring, accelerator, strategy=recipe.parallel.strategy, compile=recipe.training.compile)
        before = measure.before(model)
        publisher = Publisher(loaded, data, tuned, model, accelerator)
        result = _train(loaded, data, tuned, model, folder, accelerator, measure, publisher)
        after = measure.after(model)
        publisher.write(folder.model, before.metrics, after.metrics)
        answer = result_object(folder, result, before, after)
        if accelerator.is_main_process:
            told = sentences(
                folder,
                result,
                before,
                after,
                measure.forgetting(before, after),
                left_to_right_harm(before, after),
            )
            told += filter(None, [compare_memory(expected, folder.path, accelerator.device)])
            if recipe.output.push_to_hub:
                # Before the report, with which a run is finished: the same command then tries again.
                told.append(f"uploaded to {push_to_hub(folder.model, recipe.output.push_to_hub)}")
            write_report(folder, answer, told)
            _show(answer, told, sample_answer(before, after))
            show_passkeys(folder, before.metrics, after.metrics)
        leave_group(accelerator)
    return answer


def _check_services(recipe: Recipe) -> None:
    """Find out before anything is read what the run would miss at its end."""
    if recipe.output.push_to_hub:
        check_push(recipe.output.push_to_hub)
    check_trackers(recipe.training.trackers)


def _train(
    loaded: LoadedRecipe,
    data: TrainingData,
    tuned: TunedModel,
    model: "nn.Module",
    folder: RunFolder,
    accelerator: "Accelerator",
    measure: Measure,
    publisher: Publisher,
) -> FitResult:
    recipe = loaded.recipe
    training = recipe.training
    optimizer = training.optimizer.build(
        unwrapped(model).named_parameters(), learning_rate=training.learning_rate, weight_decay=training.weight_decay
    )
    give_own_rates(
        optimizer,
        unwrapped(model).named_parameters(),
        recipe.tuning.own_learning_rate,
        learning_rate=training.learning_rate,
    )
    objective = recipe.task.objective(router_loss_weight=tuned.router_loss_weight)
    batches = _batches(loaded, data, accelerator)
    step = Step(model=model, objective=objective, optimizer=optimizer, accelerator=accelerator, max_grad_norm=None)
    if training.micro_batch_size == "auto":
        batches.micro_batch_tokens = _resolved(folder) or find_micro_batch_tokens(
            step.rehearse,
            batches.worst_batch,
            optimizer=optimizer,
            state_bytes=training.optimizer.state_bytes,
            accelerator=accelerator,
            rows_per_step=batches.rows_per_step,
            longest_row=batches.longest_row,
        )
    # Dropout draws anew on each process, from a state that does not depend on what was measured before.
    seed_everything(recipe.seed, process_index=accelerator.process_index)
    stopping = recipe.evaluation.early_stopping
    return fit(
        model=model,
        objective=objective,
        batches=batches,
        optimizer=optimizer,
        schedule=training.schedule,
        total_steps=count_total_steps(
            epochs=training.epochs, max_steps=training.max_steps, steps_per_epoch=batches.steps_per_epoch
        ),
        accelerator=accelerator,
        settings=training,
        checkpoints=Checkpoints(
            folder.checkpoints,
            every=recipe.checkpoint.every,
            keep=recipe.checkpoint.keep,
            write_best=publisher.write,
            resolved={"micro_batch_tokens": batches.micro_batch_tokens},
        ),
        observer=Observer(
            folder.path,
            accelerator=accelerator,
            log_every=training.log_every,
            trackers=training.trackers,
            config=loaded.resolved(),
        ),
        evaluate=(lambda: measure.losses(model)) if data.eval is not None else None,
        evaluate_every=recipe.evaluation.every,
        patience=stopping.patience if stopping else None,
        min_delta=stopping.min_delta if stopping else 0.0,
        worst_batch=batches.worst_batch(),
        describe_rows=lambda indices: _describe(data.train.examples, indices),
    )


def _batches(loaded: LoadedRecipe, data: TrainingData, accelerator: "Accelerator") -> TrainBatches:
    training = loaded.recipe.training
    return TrainBatches(
        data.train.examples,
        batch_size=training.batch_size,
        batch_tokens=training.batch_tokens,
        micro_batch_size=1 if training.micro_batch_size == "auto" else training.micro_batch_size,
        packing=loaded.recipe.data.packing,
        max_length=data.max_length,
        pad_token_id=data.pad_token_id,
        seed=loaded.recipe.seed,
        process_index=accelerator.process_index,
        num_processes=accelerator.num_processes,
        source_weights=data.train.report.source_weights,
        source_origins=data.train.report.source_origins if isinstance(data.train.report, TextReport) else None,
    )


def _worst(loaded: LoadedRecipe, data: TrainingData, accelerator: "Accelerator") -> Batch:
    """The micro-batch that needs most memory; of `auto` what a CPU takes, elsewhere one row."""
    batches = _batches(loaded, data, accelerator)
    if loaded.recipe.training.micro_batch_size == "auto" and accelerator.device.type == "cpu":
        batches.micro_batch_tokens = CPU_TOKENS
    return batches.worst_batch()


@contextmanager
def _run_folder(loaded: LoadedRecipe, accelerator: "Accelerator", *, resume: bool, fresh: bool) -> Iterator[RunFolder]:
    """The run's folder, chosen, begun and held by the first process; the others follow."""
    from accelerate.utils import broadcast_object_list

    recipe = loaded.resolved()
    chosen: list[RunFolder | None] = [None]
    with ExitStack() as held:
        if accelerator.is_main_process:
            folder = choose_folder(Path(loaded.recipe.output.folder).expanduser(), recipe, resume=resume, fresh=fresh)
            held.enter_context(folder.held())
            folder.begin(recipe, loaded.as_yaml(), environment())
            chosen = [folder]
        broadcast_object_list(chosen)
        assert chosen[0] is not None
        yield chosen[0]


def _about(folder: RunFolder, loaded: LoadedRecipe, data: TrainingData, tuned: TunedModel) -> list[str]:
    """What a person should know before the run, a line each."""
    lines = [folder.note] if folder.note else []
    lines.append(f"resuming the unfinished run in {folder.path}" if folder.resumes else f"run    {folder.path}")
    lines += [*tuned.lines(packs=loaded.recipe.data.packing), *data.lines()]
    formats = [taken.format for taken in data.train.report.taken]
    advice = [*loaded.advice, *loaded.advice_on_rows(len(data.train.examples), formats)]
    return lines + [f"advice {one}" for one in advice]


def _resolved(folder: RunFolder) -> int | None:
    """The micro-batch that the run began with, which a resumed one must keep to stay bitwise the same."""
    saved = latest(folder.checkpoints, lambda sentence: None)
    return saved.resolved["micro_batch_tokens"] if saved else None


def _describe(examples: Examples, indices: Sequence[int]) -> str:
    return ", ".join(examples.place(index) for index in indices)


def _show(answer: dict[str, Any], told: list[str], sample: Any) -> None:
    after = answer["evaluation"]["after"]
    if after:
        print_comparison(comparison(answer["evaluation"]["before"], after))
    if sample is not None:
        print_sample(sample)
    for sentence in told:
        print(sentence)
    print(f"The model is in {answer['model_folder']}. Try it: ftk chat {answer['run_folder']}")


def _voice(accelerator: "Accelerator") -> Callable[[str], None]:
    """How a run speaks: on standard error, from the first process alone."""
    return tell if accelerator.is_main_process else (lambda _: None)
