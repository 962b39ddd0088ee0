"""Completions that share a prompt under dynamic NTK scaling, which turns a prompt by the length of its whole text."""

from pathlib import Path

import pytest
import torch
from trees_stand_in import tree

from ftk.data.collate import collate
from ftk.models.load import load_model
from ftk.models.scoring import ScoringModel
from ftk.models.settings import ModelSettings
from ftk.numerics.completions import completion_sums


@pytest.mark.parametrize(("lengths", "shares"), [((100, 40, 90), True), ((200, 40, 150), False), ((240, 9, 12), False)])
def test_each_completion_is_scored_by_the_length_of_its_own_text(
    model_folder: Path, lengths: tuple[int, int, int], shares: bool
) -> None:
    settings = ModelSettings(id=str(model_folder), context={"length": 512, "scaling": "dynamic"})
    model = load_model(settings, dtype=torch.float32).eval()
    draws = torch.Generator().manual_seed(0)
    prompt, chosen, rejected = (torch.randint(5, 500, (length,), generator=draws).tolist() for length in lengths)
    widths: list[int] = []
    model.get_input_embeddings().register_forward_hook(lambda module, given, output: widths.append(output.shape[0]))
    scoring = ScoringModel(model, trees=True)
    batch = collate([[tree(prompt, chosen, rejected)]], pad_token_id=0)
    with torch.no_grad():
        sums_NK = completion_sums(scoring(batch).logps_BL, batch, num_branches=2)
        assert widths[-1] == (1 if shares else 2)
        for number, completion in enumerate((chosen, rejected)):
            ids = torch.tensor([prompt + completion])
            logps_LV = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
            own = logps_LV[:-1].gather(1, ids[0, 1:, None])[len(prompt) - 1 :].sum()
            torch.testing.assert_close(sums_NK[0, number], own, rtol=0, atol=1e-3)
