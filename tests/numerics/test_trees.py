"""Completions that share a prompt are scored as if each stood alone behind it, for each well-known family."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from families import FAMILIES, documents, model_of
from test_families import gradients, with_adapters
from torch import Tensor
from trees_stand_in import tree

from ftk.core.types import Batch, Example
from ftk.data.collate import collate, idle_batch
from ftk.models.arrange import as_trees, end_to_end, one_text_a_row
from ftk.models.checkpointing import enable_activation_checkpointing
from ftk.models.scoring import ScoringModel
from ftk.numerics.completions import completion_sums

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning"),
]

WINDOWED = {"mistral", "mixtral", "gemma2", "gemma3_text", "phi3"}
"""Families of the grid with layers that look back over 5 tokens."""
TREES = [
    tree(*documents(3, 4, 2, seed=1)),
    tree(*documents(5, 1, 3, seed=2), index=1),
    tree(*documents(1, 2, 6, seed=3), index=2),
]
BATCHES = {
    "padded": collate([[one] for one in TREES], pad_token_id=0),
    "packed": collate([[TREES[0], TREES[2]], [TREES[1]]], pad_token_id=0),
}


def texts(example: Example) -> list[tuple[list[int], int]]:
    """Each completion behind its prompt, and the prompt's length."""
    assert example.branches_L is not None
    ids, branches = example.token_ids_L.tolist(), example.branches_L.tolist()
    trunk = [token for token, branch in zip(ids, branches, strict=True) if branch == 0]
    return [
        (trunk + [token for token, branch in zip(ids, branches, strict=True) if branch == number], len(trunk))
        for number in (1, 2)
    ]


def own_sums(model: Any, batch: Batch) -> Tensor:
    """Log-probability of each completion from full logits of transformers' own forward, one text at a time, [N, K]."""
    rows = []
    for index in batch.indices:
        row = []
        for ids, length in texts(TREES[index]):
            logits_LV = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
            logps_L = torch.log_softmax(logits_LV[:-1], dim=-1).gather(1, torch.tensor(ids)[1:, None])[:, 0]
            row.append(logps_L[length - 1 :].sum())
        rows.append(torch.stack(row))
    return torch.stack(rows)


def weighed(sums_NK: Tensor) -> Tensor:
    """A loss in which no two completions weigh the same."""
    return (sums_NK * torch.linspace(0.5, 2.0, sums_NK.numel()).view_as(sums_NK)).sum()


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_log_probabilities_and_gradients_are_those_of_separate_texts(family: str, tuning: str) -> None:
    model = model_of(family)
    model = with_adapters(model) if tuning == "lora" else model
    scoring = ScoringModel(model, trees=True)
    assert (scoring.tree_note is None) == (family not in WINDOWED)
    for checkpointing in (False, True):
        if checkpointing:
            enable_activation_checkpointing(model)
        for kind, batch in BATCHES.items():
            expected_NK = own_sums(model, batch)
            sums_NK = completion_sums(scoring(batch).logps_BL, batch, num_branches=2)
            torch.testing.assert_close(sums_NK, expected_NK, rtol=2e-6, atol=1e-6)
            expected = gradients(model, weighed(expected_NK))
            floor = 1e-3 * torch.stack([gradient.norm() for gradient in expected.values()]).norm()
            for name, gradient in gradients(model, weighed(sums_NK)).items():
                difference = (gradient - expected[name]).norm()
                # Some gradients are zero but for rounding, such as that of a bias on keys.
                bound = 1e-5 * torch.maximum(expected[name].norm(), floor)
                assert difference <= bound, (kind, checkpointing, name, difference / bound)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt_neox"])
def test_the_gradient_across_completions_is_exactly_zero(family: str, attention: str) -> None:
    model = model_of(family).eval()
    model.set_attn_implementation(attention)
    scoring = ScoringModel(model, trees=True)
    assert scoring.tree_note is None
    embedded: list[Tensor] = []
    model.get_input_embeddings().register_forward_hook(lambda module, arguments, output: embedded.append(output))
    batch = BATCHES["packed"]
    assert batch.branches_BL is not None
    places = [(0, 1), (0, 2), (1, 1)]  # Row and document of each example.
    for number, (row, document) in enumerate(places):
        for branch in (1, 2):
            sums_NK = completion_sums(scoring(batch).logps_BL, batch, num_branches=2)
            assert embedded[-1].shape[:2] == batch.input_ids_BL.shape, "the prompt is computed once"
            (gradient,) = torch.autograd.grad(sums_NK[number, branch - 1], embedded[-1])
            own_L = batch.document_ids_BL[row] == document
            own_L = own_L & ((batch.branches_BL[row] == 0) | (batch.branches_BL[row] == branch))
            touched_BL = gradient.any(dim=-1)
            assert not touched_BL[row, ~own_L].any()
            assert not touched_BL[1 - row].any()
            # The last token of a completion predicts nothing.
            assert int(touched_BL[row].sum()) == int(own_L.sum()) - 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_completion_does_not_see_that_another_one_changed(family: str) -> None:
    scoring = ScoringModel(model_of(family), trees=True).eval()
    batch = BATCHES["packed"]
    assert batch.branches_BL is not None
    changed_BL = (batch.branches_BL == 2) & (batch.document_ids_BL == 1)
    other = replace(batch, input_ids_BL=torch.where(changed_BL, batch.input_ids_BL + 1, batch.input_ids_BL))
    before, after = scoring(batch).logps_BL, scoring(other).logps_BL
    assert torch.equal(before[~changed_BL], after[~changed_BL])
    assert not torch.equal(before[changed_BL], after[changed_BL])


def rows_run(scoring: ScoringModel, batch: Batch) -> tuple[int, ...]:
    """The shape of the rows that the model embeds."""
    shapes: list[tuple[int, ...]] = []
    embeddings = scoring.causal_lm.get_input_embeddings()
    hook = embeddings.register_forward_hook(lambda module, arguments, output: shapes.append(tuple(output.shape[:2])))
    scoring(batch)
    hook.remove()
    assert len(shapes) == 1
    return shapes[0]


def test_windows_share_a_prompt_only_within_their_reach() -> None:
    model = model_of("gemma2")
    scoring = ScoringModel(model, trees=True)
    assert scoring.tree_note is not None
    assert "in rows of more than 5 tokens" in scoring.tree_note
    assert rows_run(scoring, BATCHES["padded"]) == (6, 8)
    narrow = collate([[tree(*documents(2, 1, 2))]], pad_token_id=0)
    assert rows_run(scoring, narrow) == (1, 5)
    found = scoring(narrow).logps_BL
    torch.testing.assert_close(found, ScoringModel(model)(narrow).logps_BL, rtol=2e-6, atol=1e-6)


def test_without_the_announcement_each_completion_gets_a_row_of_its_own() -> None:
    scoring = ScoringModel(model_of("llama"))
    assert scoring.tree_note is None
    assert rows_run(scoring, BATCHES["packed"]) == (6, 8)


def test_a_model_that_counts_positions_by_itself_is_found_out() -> None:
    """The proof looks at what the model does, not at its name."""
    model = model_of("llama")

    def from_zero(module: Any, arguments: Any, named: dict[str, Any]) -> Any:
        return arguments, {**named, "position_ids": None} if "attention_mask" in named else named

    model.model.register_forward_pre_hook(from_zero, with_kwargs=True)
    scoring = ScoringModel(model, trees=True)
    assert scoring.tree_note is not None
    assert "does not take completions that share a prompt" in scoring.tree_note
    assert scoring.packing_note is None
    assert rows_run(scoring, BATCHES["padded"]) == (6, 8)


def test_a_model_that_looks_at_all_of_a_mask_is_found_out() -> None:
    model = model_of("llama")

    def see_everything_before(module: Any, arguments: Any, named: dict[str, Any]) -> Any:
        if "attention_mask" in named:
            named = {**named, "attention_mask": torch.ones_like(named["attention_mask"]).tril()}
        return arguments, named

    model.model.register_forward_pre_hook(see_everything_before, with_kwargs=True)
    assert ScoringModel(model, trees=True).tree_note is not None


def test_layers_of_a_kind_that_is_not_known_share_nothing() -> None:
    model = model_of("llama")
    model.config.layer_types = ["full_attention", "looks_back_a_little"]
    assert ScoringModel(model, trees=True).tree_note is not None


@pytest.mark.parametrize("kind", BATCHES)
def test_arrangements_agree_on_what_predicts_each_token(kind: str) -> None:
    """By the tokens themselves: the place that predicts a token holds the one before it in its text."""
    batch = BATCHES[kind]
    expected: dict[int, list[int]] = {}
    ids, weights = batch.input_ids_BL.flatten().tolist(), batch.weights_BL.flatten().tolist()
    before = [(text[place - 1], text[place]) for index in batch.indices for text, n in texts(TREES[index])
              for place in range(n, len(text))]  # fmt: skip
    for name, arrange in {"trees": as_trees, "rows": one_text_a_row, "end to end": end_to_end}.items():
        arrangement = arrange(batch)
        rows = arrangement.input_ids_RM.flatten()
        predictors = arrangement.predictors_N.tolist()
        pairs = [(int(rows[at]), token) for at, token, weight in zip(predictors, ids, weights, strict=True) if weight]
        expected[len(expected)] = pairs
        assert sorted(pairs) == sorted(before), name
        assert int(arrangement.counted_RM.sum()) == batch.num_tokens
    assert expected[0] == expected[1] == expected[2]


def test_a_prompt_without_completions_beside_trees_is_a_text() -> None:
    batch = BATCHES["packed"]
    assert batch.branches_BL is not None
    bare = replace(batch, branches_BL=torch.where(batch.document_ids_BL == 2, 0, batch.branches_BL))
    positions = bare.position_ids_BL.clone()
    length = int((batch.document_ids_BL[0] == 2).sum())
    positions[0, batch.document_ids_BL[0] == 2] = torch.arange(length)
    bare = replace(bare, position_ids_BL=positions)
    model = model_of("llama")
    one, other = ScoringModel(model, trees=True)(bare).logps_BL, ScoringModel(model)(bare).logps_BL
    torch.testing.assert_close(one, other, rtol=2e-6, atol=1e-6)
    assert rows_run(ScoringModel(model), bare) == (5, length)


def test_rows_end_to_end_give_what_trees_give() -> None:
    """What kernels for rows of varying length get; their block mask is transformers' own to make from positions."""
    model = model_of("llama").eval()
    scoring = ScoringModel(model, trees=True)
    for batch in BATCHES.values():
        expected = scoring(batch).logps_BL
        model.config._attn_implementation = "flash_attention_2"
        arrangement = scoring._arrange(batch)
        model.config._attn_implementation = "sdpa"
        assert arrangement.input_ids_RM.shape == (1, sum(len(text) for one in TREES for text, _ in texts(one)))
        given = ScoringModel(model)
        given._arrange = lambda batch, arrangement=arrangement: arrangement
        torch.testing.assert_close(given(batch).logps_BL, expected, rtol=2e-6, atol=1e-6)


def test_the_routers_count_a_shared_prompt_once() -> None:
    model = model_of("qwen3_moe")
    shared, repeated = ScoringModel(model, router=True, trees=True), ScoringModel(model, router=True)
    assert shared.tree_note is None
    for batch in BATCHES.values():
        found, wanted = repeated(batch).router, shared(batch).router
        assert found is not None
        assert wanted is not None
        assert float(found.num_tokens) == 2 * batch.num_tokens
        torch.testing.assert_close(tuple(found), tuple(wanted), rtol=1e-5, atol=1e-5)


def test_half_precision_shares_a_prompt_too() -> None:
    model = model_of("llama", dtype=torch.bfloat16)
    for attention in ("sdpa", "eager"):
        model.set_attn_implementation(attention)
        scoring = ScoringModel(model, trees=True)
        assert scoring.tree_note is None
        assert scoring(BATCHES["packed"]).logps_BL.isfinite().all()


def test_an_idle_row_touches_every_weight_and_moves_none() -> None:
    model = model_of("llama")
    scoring = ScoringModel(model, trees=True)
    for example in (TREES[0], tree(*documents(3, 4, 2), branches=[1, -1])):
        idle = idle_batch(example)
        for batch in filter(None, (idle, idle.aside)):
            sums_NK = completion_sums(scoring(batch).logps_BL, batch, num_branches=2)
            found = gradients(model, sums_NK.sum())
            assert not any(gradient.any() for gradient in found.values())


def test_the_first_token_of_a_prompt_has_no_weight() -> None:
    batch = BATCHES["packed"]
    weights_BL = batch.weights_BL.clone()
    weights_BL[0, 0] = 1
    with pytest.raises(ValueError, match="nothing comes before it"):
        ScoringModel(model_of("llama"))(replace(batch, weights_BL=weights_BL))


def test_a_weight_on_the_prompt_is_scored_once() -> None:
    batch = BATCHES["packed"]
    weights_BL = (batch.document_ids_BL > 0) & (batch.position_ids_BL > 0)
    batch = replace(batch, weights_BL=weights_BL.float())
    model = model_of("llama")
    one, other = ScoringModel(model, trees=True)(batch).logps_BL, ScoringModel(model)(batch).logps_BL
    assert (one[weights_BL] < 0).all()
    torch.testing.assert_close(one, other, rtol=2e-6, atol=1e-6)
