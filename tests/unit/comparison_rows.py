"""Preference rows in a file, read."""

import json
from pathlib import Path
from typing import Any

from ftk.data.comparisons import Comparisons, read_comparisons
from ftk.data.settings import Source

USER = {"role": "user", "content": "q"}
GOOD, BAD = {"role": "assistant", "content": "good"}, {"role": "assistant", "content": "bad"}
PAIRS: dict[str, list[list[dict[str, Any]]]] = {
    # By format: rows of a file, all of which say that `good` is the better answer to `q`.
    "pairs": [
        [{"prompt": "q", "chosen": "good", "rejected": "bad"}],
        [{"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}],
        [{"prompt": [USER], "chosen": "good", "rejected": [BAD]}],
        [{"chosen": [USER, GOOD], "rejected": [USER, BAD]}],
        # HuggingFaceH4/ultrafeedback_binarized: the prompt beside whole conversations, and the chosen one once more.
        [{"prompt": "q", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD]}],
        [{"chosen": "\n\nHuman: q\n\nAssistant: good", "rejected": "\n\nHuman: q\n\nAssistant: bad"}],
    ],
    "ranked": [
        [{"prompt": "q", "ranked": ["good", "bad"]}],
        [{"ranked": [[USER, GOOD], [USER, BAD]]}],
    ],
    "rated": [
        [{"prompt": "q", "completions": [{"completion": "bad", "rating": 1}, {"completion": "good", "rating": 4.5}]}],
        # openbmb/UltraFeedback
        [
            {
                "instruction": "q",
                "completions": [
                    {"response": "good", "overall_score": 8.0, "model": "m"},
                    {"response": "bad", "overall_score": 7.5, "model": "n"},
                ],
            }
        ],
        [{"prompt": "q", "completions": ["bad", "good"], "ratings": ["2", "3"]}],
        [{"prompt": "q", "completions": '["bad", "good"]', "ratings": "[2, 3]"}],
    ],
    "rated_messages": [
        [{"messages": [USER, BAD], "rating": 2}, {"messages": [USER, GOOD], "rating": 5}],
        [{"messages": json.dumps([USER, GOOD]), "rating": "0.7"}, {"messages": [USER, BAD], "rating": -1}],
    ],
}


def read(tmp_path: Path, *rows: Any, unpaired: bool = False, **source: Any) -> Comparisons:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_comparisons([Source(source=str(file), **source)], unpaired=unpaired)
