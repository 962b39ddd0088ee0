"""Any split of the same examples gives the same update."""

import copy
import math
from dataclasses import replace

import pytest
import torch
from model_stand_in import Baselined, StandIn
from preference_objectives import LOSSES, batch_of, examples, objective_of
from rows_stand_in import OBJECTIVES, collate, data_of, objective_named, rows, split
from torch import nn

from ftk.core.errors import RunError
from ftk.numerics.completions import completion_sums
from ftk.objectives.sft import SftObjective
from ftk.train.group import join_group
from ftk.train.step import Step, StepResult

DATA = rows(8, seed=3)


def step_of(
    model: nn.Module, batches, *, objective=None, max_grad_norm=None, learning_rate=1.0, **options
) -> tuple[StepResult, dict[str, torch.Tensor]]:
    """One step of plain gradient descent; the result, and the gradients as the weights moved by them."""
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    step = Step(
        model=model,
        objective=objective or SftObjective(),
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        accelerator=join_group("fp32"),
        max_grad_norm=max_grad_norm,
        **options,
    )
    result = step(batches, learning_rate=learning_rate)
    return result, {name: before[name] - one.detach() for name, one in model.named_parameters()}


def recorded_gradients(model: nn.Module, batches, **options):
    """Gradients as the optimizer sees them."""
    seen: dict[str, torch.Tensor] = {}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    optimizer.register_step_pre_hook(
        lambda *_: seen.update({name: one.grad.clone() for name, one in model.named_parameters()})
    )
    step = Step(
        model=model,
        objective=options.pop("objective", None) or SftObjective(),
        optimizer=optimizer,
        accelerator=join_group("fp32"),
        max_grad_norm=None,
    )
    return step(batches, learning_rate=0.0), seen


def named(objective: str):
    if objective == "baselined":
        return Baselined()
    return objective_named(objective)


def same_gradients(found, wanted, *, tolerance: float) -> None:
    for name, gradient in wanted.items():
        assert torch.linalg.norm(gradient) > 0, name
        assert torch.linalg.norm(found[name] - gradient) <= tolerance * torch.linalg.norm(gradient), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("objective", ["baselined", *OBJECTIVES])
def test_accumulation_normaliser_one_batch_of_8_equals_8_of_1(dtype, tolerance, objective):
    """known_bugs: accumulation normaliser."""
    torch.manual_seed(0)
    model = StandIn().to(dtype)
    data, collated = (DATA, collate) if objective == "baselined" else data_of(objective, 8, seed=3)
    whole, gradients = recorded_gradients(model, split(data, 8, collated), objective=named(objective))
    for size in (1, 3):
        parts, accumulated = recorded_gradients(model, split(data, size, collated), objective=named(objective))
        same_gradients(accumulated, gradients, tolerance=tolerance)
        assert parts.grad_norm == pytest.approx(whole.grad_norm, rel=tolerance)
        relative = 1e-6 if dtype == torch.float32 else 1e-12
        assert parts.loss == pytest.approx(whole.loss, rel=relative)
        assert parts.figures == pytest.approx(whole.figures, rel=relative, abs=1e-6)
        assert parts.num_tokens == whole.num_tokens > 0


@pytest.mark.parametrize("objective", ["cpt", *LOSSES])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
def test_packed_equals_unpacked(dtype, tolerance, objective):
    torch.manual_seed(0)
    model = StandIn().to(dtype)
    data, _ = data_of(objective, 8, seed=3)
    apart = [batch_of([[one] for one in data], spare=data[0])]
    packed = [batch_of(rows, spare=data[0]) for rows in ([data[:3], data[3:5]], [data[5:]])]
    assert all(batch.packed for batch in packed)
    one, gradients = recorded_gradients(model, apart, objective=named(objective))
    two, found = recorded_gradients(model, packed, objective=named(objective))
    same_gradients(found, gradients, tolerance=tolerance)
    assert two.loss == pytest.approx(one.loss, rel=1e-6 if dtype == torch.float32 else 1e-12)
    assert two.figures == pytest.approx(one.figures, rel=1e-6, abs=1e-6)


def test_dpo_starts_at_log_two():
    """known_bugs: reference with dropout. The reference is scored in one batch, the step takes three."""
    torch.manual_seed(0)
    model = StandIn()
    data = examples(8, unpaired=False, seed=3)
    whole = batch_of([[one] for one in data], spare=data[0])
    with torch.no_grad():
        reference_NK = completion_sums(model(whole).logps_BL, whole, num_branches=2).numpy()
    data = [replace(one, columns={"reference_logps": own}) for one, own in zip(data, reference_NK, strict=True)]
    batches = [batch_of([[one] for one in data[start : start + 3]], spare=data[0]) for start in (0, 3, 6)]
    result, _ = recorded_gradients(model, batches, objective=objective_of("dpo"))
    assert result.loss == pytest.approx(math.log(2), abs=1e-6)
    assert result.figures["kl"] == pytest.approx(0, abs=1e-5)


def test_the_loss_is_the_weighted_mean_over_all_tokens():
    torch.manual_seed(0)
    model = StandIn().double()
    with torch.no_grad():
        total = weight = 0.0
        for ids, weights in DATA:
            scores = model(collate([(ids, weights)], [0]))
            total -= float((scores.logps_BL[0].double() * torch.tensor(weights).double()).sum())
            weight += sum(weights)
    result, _ = recorded_gradients(model, split(DATA, 3))
    assert result.loss == pytest.approx(total / weight, rel=1e-6)
    assert result.terms == {"nll": result.loss}


def test_gradients_equal_those_of_the_loss_over_all_rows_by_autograd():
    torch.manual_seed(0)
    model = StandIn().double()
    batch = collate(DATA, range(8))
    loss = -(model(batch).logps_BL * batch.weights_BL.double()).sum() / batch.weights_BL.double().sum()
    expected = torch.autograd.grad(loss, list(model.parameters()))
    _, gradients = recorded_gradients(model, split(DATA, 3))
    for found, wanted in zip(gradients.values(), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_statistics_see_the_dropout_of_the_pass_with_gradients():
    """With one micro-batch a step the statistics come from the very pass; split in two, from a pass of their own."""
    torch.manual_seed(0)
    model = StandIn(dropout=0.5).double()
    batch = collate(DATA[:4], range(4))
    torch.manual_seed(1)
    alone, gradients = recorded_gradients(model, [batch], objective=Baselined())
    torch.manual_seed(1)
    # An empty second micro-batch adds nothing but makes the statistics a pass of their own.
    both, again = recorded_gradients(model, [batch, collate([], [])], objective=Baselined())
    assert both.loss == pytest.approx(alone.loss, rel=1e-12)
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-9, atol=1e-12)


def test_clipping_is_by_the_global_norm():
    torch.manual_seed(0)
    model = StandIn()
    free, moved = step_of(copy.deepcopy(model), split(DATA, 3))
    assert free.grad_norm == pytest.approx(
        math.sqrt(sum(float((one.double() ** 2).sum()) for one in moved.values())), rel=1e-5
    )
    limit = free.grad_norm / 4
    clipped, short = step_of(copy.deepcopy(model), split(DATA, 3), max_grad_norm=limit)
    assert clipped.grad_norm == pytest.approx(free.grad_norm, rel=1e-6)
    for name, one in short.items():
        torch.testing.assert_close(one, moved[name] / 4, rtol=1e-3, atol=1e-6)


def test_a_step_without_weight_is_skipped():
    model = StandIn()
    nothing = [(ids, [0.0] * len(ids)) for ids, _ in DATA]
    result, moved = step_of(model, split(nothing, 4))
    assert result.skipped == "no weight"
    assert all(not one.any() for one in moved.values())


def poisoned(model: nn.Module) -> nn.Module:
    """The model, whose token 7 has an embedding that is not a number."""
    with torch.no_grad():
        model.embed_tokens.weight[7] = math.nan
    return model


def test_a_loss_that_is_not_finite_stops_and_names_its_rows():
    clean = [([1, 2, 3, 4], [0.0, 1.0, 1.0, 1.0])] * 5
    data = [*clean[:3], ([1, 7, 3, 4], [0.0, 1.0, 1.0, 1.0]), *clean]
    with pytest.raises(RunError, match=r"loss is not finite\. The rows of it: rows:4\. ") as caught:
        step_of(poisoned(StandIn()), split(data, 3), describe_rows=lambda at: ", ".join(f"rows:{i + 1}" for i in at))
    assert caught.value.exit_code == 4


def test_on_nonfinite_skip_leaves_the_weights_alone():
    result, moved = step_of(poisoned(StandIn()), split([([1, 7, 3], [0.0, 1.0, 1.0])] * 2, 1), on_nonfinite="skip")
    assert result.skipped == "nonfinite loss"
    assert all(not one.nan_to_num().any() for one in moved.values())


def test_gradients_that_are_not_finite_stop_too():
    model = StandIn()
    model.head.weight.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(RunError, match=r"gradients are not finite\. The rows of it: 0, 1"):
        step_of(model, split(DATA[:2], 1), describe_rows=lambda at: ", ".join(map(str, at)))


def test_the_learning_rate_is_that_of_the_call():
    torch.manual_seed(0)
    model = StandIn().double()
    _, moved = step_of(copy.deepcopy(model), split(DATA, 8))
    _, tenth = step_of(model, split(DATA, 8), learning_rate=0.1)
    for name, one in moved.items():
        torch.testing.assert_close(tenth[name], one / 10, rtol=1e-6, atol=1e-12)


def test_token_accuracy_is_over_answer_tokens():
    model = StandIn()
    batch = collate(DATA, range(8))
    correct = int((model(batch).correct_BL & batch.answers_BL).sum())
    result, _ = step_of(model, [batch])
    assert result.figures == {"token_accuracy": pytest.approx(correct / int(batch.answers_BL.sum()))}
