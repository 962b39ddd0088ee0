"""The shortest recipe, for tests to add to."""

BASE = "model: ftk://tiny\ndata: {train: rows.jsonl, eval: held_out.jsonl}\n"
