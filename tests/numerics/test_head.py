"""Every way of taking log-probabilities from the head is the definition on full logits, values and gradients."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from ftk.numerics.head import Budget, HeadScores, LogitTransform, reference_scores, token_scores

T, D, V = 23, 8, 50
KEPT = Budget(chunk_tokens=5, kept_bytes=2**30)
RECOMPUTED = Budget(chunk_tokens=5, kept_bytes=0)
TRANSFORMS = [LogitTransform(), LogitTransform(scale=0.25), LogitTransform(soft_cap=2.0)]


@pytest.fixture
def hidden_TD() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(T, D, dtype=torch.float64)


@pytest.fixture
def targets_T() -> Tensor:
    return torch.randint(V, (T,), generator=torch.Generator().manual_seed(1))


def slopes(scores: HeadScores, *inputs: Tensor) -> tuple[Tensor, ...]:
    """Gradients of a sum in which each log-probability has its own factor."""
    factors_T = torch.linspace(-1, 2, len(scores.logps_T), dtype=scores.logps_T.dtype)
    return torch.autograd.grad((scores.logps_T * factors_T).sum(), inputs)


def test_equal_logits_give_minus_log_of_the_vocabulary() -> None:
    head = nn.Linear(D, V)
    nn.init.zeros_(head.weight)
    nn.init.ones_(head.bias)
    scores = token_scores(head, torch.randn(3, D), torch.tensor([0, 1, 2]), vocabulary_size=V)
    torch.testing.assert_close(scores.logps_T, torch.full((3,), -math.log(V)))
    # The first of equal ones is what greedy decoding takes.
    assert scores.correct_T.tolist() == [True, False, False]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("trained", [True, False], ids=["trained head", "frozen head"])
@pytest.mark.parametrize("budget", [KEPT, RECOMPUTED], ids=["kept", "recomputed"])
def test_values_and_gradients_are_the_definitions(
    hidden_TD: Tensor, targets_T: Tensor, budget: Budget, trained: bool, transform: LogitTransform
) -> None:
    head = nn.Linear(D, V, dtype=torch.float64).requires_grad_(trained)
    hidden_TD.requires_grad_()
    inputs = (hidden_TD, *head.parameters()) if trained else (hidden_TD,)
    expected = reference_scores(transform(head(hidden_TD)), targets_T)
    scores = token_scores(head, hidden_TD, targets_T, vocabulary_size=V, transform=transform, budget=budget)
    torch.testing.assert_close(scores, expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(slopes(scores, *inputs), slopes(expected, *inputs), rtol=1e-12, atol=1e-12)


def test_without_gradients_the_values_are_the_same(hidden_TD: Tensor, targets_T: Tensor) -> None:
    head = nn.Linear(D, V, dtype=torch.float64)
    with torch.no_grad():
        scores = token_scores(head, hidden_TD, targets_T, vocabulary_size=V, budget=KEPT)
        torch.testing.assert_close(scores, reference_scores(head(hidden_TD), targets_T), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("trained", [True, False])
def test_no_more_logits_than_a_chunk_exist(hidden_TD: Tensor, targets_T: Tensor, trained: bool) -> None:
    head = nn.Linear(D, V, dtype=torch.float64).requires_grad_(trained)
    sizes: list[int] = []
    head.register_forward_hook(lambda module, arguments, output: sizes.append(len(output)))
    hidden_TD.requires_grad_()
    scores = token_scores(head, hidden_TD, targets_T, vocabulary_size=V, budget=RECOMPUTED)
    assert sizes == [5, 5, 5, 5, 3]
    slopes(scores, hidden_TD)
    assert len(sizes) == (10 if trained else 5)


class DroppingHead(nn.Module):
    """A head as PEFT makes it: frozen weights, and an adapter with dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(D, V, dtype=torch.float64).requires_grad_(False)
        self.down = nn.Linear(D, 2, bias=False, dtype=torch.float64)
        self.up = nn.Linear(2, V, bias=False, dtype=torch.float64)

    def forward(self, hidden: Tensor) -> Tensor:
        result: Tensor = self.base(hidden) + self.up(self.down(nn.functional.dropout(hidden, 0.5)))
        return result


def test_recomputed_chunks_draw_the_same_dropout(hidden_TD: Tensor, targets_T: Tensor) -> None:
    head = DroppingHead()
    inputs = (hidden_TD.requires_grad_(), head.down.weight, head.up.weight)
    results = []
    for budget in (KEPT, RECOMPUTED):
        torch.manual_seed(3)
        scores = token_scores(head, hidden_TD, targets_T, vocabulary_size=V, budget=budget)
        torch.rand(7)  # What else draws between forward and backward.
        results.append((scores.logps_T, *slopes(scores, *inputs)))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize("budget", [KEPT, RECOMPUTED])
def test_half_precision_logits_are_summed_in_float32(
    targets_T: Tensor, dtype: torch.dtype, trained: bool, budget: Budget
) -> None:
    torch.manual_seed(0)
    head = nn.Linear(D, V).requires_grad_(trained)
    hidden_TD = torch.randn(T, D, requires_grad=True)
    inputs = (hidden_TD, *head.parameters()) if trained else (hidden_TD,)
    with torch.autocast("cpu", dtype=dtype):
        expected = reference_scores(head(hidden_TD), targets_T)
        scores = token_scores(head, hidden_TD, targets_T, vocabulary_size=V, budget=budget)
    assert scores.logps_T.dtype == torch.float32
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slopes(scores, *inputs), slopes(expected, *inputs), rtol=2e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["autocast", "stored"])
def test_small_gradients_of_float16_survive_by_the_loss_scale(dtype: torch.dtype) -> None:
    """A frozen head must not take gradients before the loss is scaled: those of improbable tokens would vanish."""
    head = nn.Linear(1, 2, bias=False).requires_grad_(False)
    head.weight.copy_(torch.tensor([[0.0], [-1.0]]))
    head.to(dtype)
    hidden_TD = torch.tensor([[18.0]], dtype=dtype, requires_grad=True)
    scale = 2.0**16
    with torch.autocast("cpu", dtype=torch.float16):
        logps_T = token_scores(head, hidden_TD, torch.tensor([0]), vocabulary_size=2).logps_T
    (slope_TD,) = torch.autograd.grad(logps_T.sum() * scale, hidden_TD)
    # d/dh of -log(1 + exp(-h)) is 1.5e-8, and float16 has nothing between 0 and 6e-8.
    assert slope_TD.item() / scale == pytest.approx(1 / (1 + math.exp(18)), rel=0.01)


def test_a_head_that_keeps_its_logits_for_itself_is_not_corrupted(hidden_TD: Tensor, targets_T: Tensor) -> None:
    head = nn.Sequential(nn.Linear(D, V, dtype=torch.float64), nn.Tanh())
    scores = token_scores(head, hidden_TD.requires_grad_(), targets_T, vocabulary_size=V, budget=KEPT)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        slopes(scores, hidden_TD)


def mean_of_halves(logps_T: Tensor) -> Tensor:
    return (logps_T[:10].mean() + logps_T[10:].mean()) / 2


@pytest.mark.parametrize("loss", [Tensor.sum, mean_of_halves, lambda x: x.exp().sum()])
def test_any_loss_of_log_probabilities_gets_its_gradient(
    hidden_TD: Tensor, targets_T: Tensor, loss: Callable[[Tensor], Tensor]
) -> None:
    """Also where the factors of the backward pass depend on the values, as in preference losses."""
    head = nn.Linear(D, V, dtype=torch.float64)
    hidden_TD.requires_grad_()
    for trained in (True, False):
        head.requires_grad_(trained)
        scores = token_scores(head, hidden_TD, targets_T, vocabulary_size=V, budget=RECOMPUTED)
        expected = reference_scores(head(hidden_TD), targets_T)
        (gradient,) = torch.autograd.grad(loss(scores.logps_T), hidden_TD)
        torch.testing.assert_close(gradient, torch.autograd.grad(loss(expected.logps_T), hidden_TD)[0])
