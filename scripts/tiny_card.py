"""The tiny model's card: what it is, what it read, how long, and its held-out loss beside a bigram's."""

import platform

import tokenizers
import torch
import transformers

FRONT = """\
---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# ftk://tiny

A language model of {parameters:,} parameters in the Llama architecture that ships with ftk, so that recipes, tests and
the quickstart run offline in seconds. It continues Python code and plain English a little, and it copies: it has
learned to move names and values from a text into another layout. It knows nothing of the world and is of no use
unless tuned, and then only for narrow tasks.
"""


def card(run: dict[str, float], figures: dict[str, dict[str, float]], shares: dict[str, float]) -> str:
    """The card in Markdown. `run` has steps, tokens, seconds, learning_rate, seed, parameters."""
    read = "\n".join(f"- {TEXTS[kind]}: {share:.0%}" for kind, share in shares.items())
    rows = "\n".join(
        f"| {kind} | {row['tokens']:,} | {row['loss']:.3f} | {row['bigram_loss']:.3f} "
        f"| {row['bits_per_byte']:.3f} | {row['bigram_bits_per_byte']:.3f} |"
        for kind, row in figures.items()
    )
    return f"""{FRONT.format(parameters=run["parameters"])}
## What it has read
{run["tokens"]:,} tokens, drawn with these shares:
{read}

All of it comes from the standard library of Python {platform.python_version()} and from `scripts/tiny_english.py`,
which invents it. It has read no order, customer, item or quantity: the quickstart's task (`ftk://orders`) is new to it.

## How it was trained
`python scripts/build_tiny.py --steps {run["steps"]} --learning-rate {run["learning_rate"]} --seed {run["seed"]} \
--out ftk/models/tiny`: {run["steps"]:,} steps in {run["seconds"] / 60:.0f} minutes
on two x86-64 CPU cores shared with other work, in float32, with torch {torch.__version__},
transformers {transformers.__version__} and tokenizers {tokenizers.__version__}. Matrices were trained by Muon, the rest
by AdamW. Weights are stored as bfloat16; `config.json` names float32 as the precision to compute in, because bfloat16
is slow on most CPUs.

## Held-out loss
Files and documentation topics that were held out whole by a checksum of their names, and conversations from another
seed. The bigram model counts the same training tokens and is measured on the same positions. Nats a token, bits a byte.

| text | tokens | loss | bigram loss | bits a byte | bigram bits a byte |
| --- | --- | --- | --- | --- | --- |
{rows}

## Format
Byte-level BPE of 2,048 entries. Each digit and each run of spaces is a token of its own, so a word has the same tokens
after a space as after a quotation mark. Chat turns are `<|im_start|>role`, newline, text, `<|im_end|>`; the template
puts `<|begin|>` once, marks answers (their `<|im_end|>` included) for `return_assistant_tokens_mask`, and takes system,
user, assistant and tool messages. Infilling is `<|fim_prefix|>`, `<|fim_suffix|>`, `<|fim_middle|>` in this order.

## Limits
Text beyond its 1,024 positions, facts, arithmetic, safety: it has none of these. Its code does not run. Invented names
stand for nobody.

## Licence
Apache-2.0. The training text from Python's standard library is under the PSF licence.
"""


TEXTS = {
    "chat": "invented conversations in chat form (records in another layout, questions on facts, lists, dates)",
    "plain": "the same as plain notes",
    "story": "invented short stories",
    "echo": "invented words said over again",
    "code": "standard library sources",
    "infill": "pieces of the same sources rearranged for infilling",
    "prose": "standard library docstrings and documentation topics",
}
