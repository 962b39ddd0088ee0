"""Each deterministic method equals mergekit's, where mergekit is installed."""

from typing import Any

import pytest
import torch
from test_merge_methods import DENSITIES, GAMMAS, WEIGHTS, merged, models
from torch import Tensor

pytestmark = pytest.mark.peers

TWO = WEIGHTS[:2]
TRIMMED: dict[str, Any] = {"weight": WEIGHTS, "density": DENSITIES}
CASES: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    # method, which models, parameters of models, settings
    ("linear", "three", {"weight": WEIGHTS}, {}),
    ("linear", "three", {"weight": WEIGHTS}, {"normalize": False}),
    ("slerp", "base and one", {}, {"t": 0.3}),
    ("nuslerp", "two", {"weight": TWO}, {}),
    ("nuslerp", "base and two", {"weight": TWO}, {}),
    ("nuslerp", "two", {"weight": TWO}, {"nuslerp_flatten": False}),
    ("nuslerp", "base and two", {"weight": TWO}, {"nuslerp_flatten": False, "nuslerp_row_wise": True}),
    ("multislerp", "three", {"weight": WEIGHTS}, {}),
    ("multislerp", "base and three", {"weight": WEIGHTS}, {"normalize_weights": False}),
    ("karcher", "three", {}, {}),
    ("task_arithmetic", "base and three", {"weight": [0.5, -0.3, 0.4]}, {}),
    ("task_arithmetic", "base and three", {"weight": WEIGHTS}, {"normalize": True, "lambda": 0.7}),
    ("ties", "base and three", TRIMMED, {}),
    ("ties", "base and three", TRIMMED, {"normalize": False, "lambda": 0.6, "rescale": True}),
    ("ties", "base and three", TRIMMED | {"weight": [0.5, -0.3, 0.4]}, {}),
    ("breadcrumbs", "base and three", TRIMMED | {"gamma": GAMMAS}, {}),
    ("breadcrumbs_ties", "base and three", TRIMMED | {"gamma": GAMMAS}, {"rescale": True}),
    ("model_stock", "base and three", {}, {}),
    ("model_stock", "base and three", {}, {"filter_wise": True}),
    ("sce", "base and three", {}, {"select_topk": 0.4}),
    ("sce", "base and three", {}, {}),
    ("nearswap", "base and one", {}, {"t": 0.05}),
    ("arcee_fusion", "base and one", {}, {}),
    ("passthrough", "one", {"scale": [0.5]}, {}),
]
COUNTS = {"one": 1, "two": 2, "three": 3}
# Their thresholds or elections part elements that differ by a rounding, or not at all.
PARTING = ("ties", "breadcrumbs", "breadcrumbs_ties", "sce", "arcee_fusion")


def theirs(name: str, tensors: list[Tensor], base: Tensor | None, model: dict[str, Any], **settings: Any) -> Tensor:
    mergekit = pytest.importorskip("mergekit.merge_methods")
    # Registers its methods.
    pytest.importorskip("mergekit.merge_methods.registry")
    if base is None:
        merged_by_it: Tensor = mergekit.merge_tensors(tensors, name, parameters=model | settings)
        return merged_by_it
    named = {key: dict(enumerate(values, start=1)) for key, values in model.items()}
    merged_by_it = mergekit.merge_tensors([base, *tensors], name, parameters=named | settings, base_index=0)
    return merged_by_it


@pytest.mark.parametrize("shape", [(67, 130), (999,), (5, 6, 7)])
@pytest.mark.parametrize(("name", "which", "model", "settings"), CASES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_equals_mergekit(
    name: str, which: str, model: dict[str, Any], settings: dict[str, Any], dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    """In half precision up to its rounding: it rounds after every step, and orders equal changes arbitrarily."""
    base, *others = models(COUNTS[which.split()[-1]], shape, dtype)
    given = base if which.startswith("base") else None
    result = merged(name, others, given, model=model, **settings)
    if dtype != torch.bfloat16:
        tolerance = 1e-12 if dtype == torch.float64 else 2e-6
        torch.testing.assert_close(
            result, theirs(name, others, given, model, **settings), rtol=tolerance, atol=tolerance
        )
        return
    # mergekit's own result in float32, as its files ask for it by dtype and out_dtype: one rounding apart.
    wide = [tensor.float() for tensor in others]
    expected = theirs(name, wide, None if given is None else given.float(), model, **settings)
    off = ((result.float() - expected).abs() > 2**-7 * (expected.abs() + 1)).float().mean()
    assert off <= (0.015 if name in PARTING else 0)
