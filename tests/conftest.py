"""A random model of a few thousand weights, a handful of rows, and `ftk` called as a user calls it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from run_ftk import NUM_ROWS, Ftk
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import ftk

TINY = Path(ftk.__file__).parent / "models" / "tiny"


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of width 16 with ftk://tiny's tokenizer; attention drops out, so that random states matter."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(TINY)
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=len(tokenizer),
        max_position_embeddings=256,
        attention_dropout=0.1,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rows_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve questions of different lengths."""
    path = tmp_path_factory.mktemp("data") / "rows.jsonl"
    rows = [
        {"question": f"How many are {n} and {n * n}?{' Please.' * (n % 4)}", "answer": f"{n + n * n}."}
        for n in range(NUM_ROWS)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def recipe_file(tmp_path: Path, model_folder: Path, rows_file: Path) -> Path:
    """Two epochs of three steps, a checkpoint after each step."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        f"""\
model: {model_folder}
task: sft
data: {{train: {rows_file}, eval: {rows_file}, max_length: 128}}
tuning: full
training: {{epochs: 2, batch_size: 4, micro_batch_size: 2, learning_rate: 1.0e-2, precision: fp32}}
evaluation: {{every: 1 epoch, metrics: [exact_match], max_new_tokens: 4}}
checkpoint: {{every: 1, keep: 10}}
output: {tmp_path / "run"}
"""
    )
    return path


@pytest.fixture
def ftk_json(capfd: pytest.CaptureFixture[str]) -> Ftk:
    """Call `ftk ... --json` here: the object that it printed, with `exit_code` and `stderr` beside it."""
    from ftk.cli.app import main

    def call(*words: str | Path) -> dict[str, Any]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([*map(str, words), "--json"])
        captured = capfd.readouterr()
        lines = captured.out.splitlines()
        assert len(lines) == 1, f"expected one line on standard output, got {captured.out!r}\n{captured.err}"
        return {**json.loads(lines[0]), "exit_code": end.value.code, "stderr": captured.err}

    return call
