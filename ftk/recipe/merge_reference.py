"""The reference page of merges: the file's keys, and each method with its parameters, written from the docstrings."""

from typing import Any

from ftk.merging.method import Parameter
from ftk.merging.methods import NAMES, method_named
from ftk.recipe.reference import section_table, summary

_HEAD = """# Merge reference

What `ftk merge merge.yaml --out DIR` reads: mergekit's configuration files as they are. Written by
`scripts/build_reference.py` from the docstrings in the code. `--plan` in place of `--out` shows what would be done.

```yaml
merge_method: ties
base_model: Qwen/Qwen2.5-0.5B          # the model that the others were made from
models:
  - model: runs/orders                 # a run, a folder, a hub id, id@revision, or base+adapter
    parameters: {weight: 0.5, density: 0.3}
  - model: runs/contacts
    parameters:
      weight: [0.2, 0.8]               # from the first layer to the last
      density:                         # by parts of tensor names; the first that fits counts
        - {filter: mlp, value: 0.5}
        - {value: 0.3}
parameters: {normalize: true}          # of the whole merge, and of every model that has none of its own
tokenizer_source: union
```

## The file

| key | meaning |
| --- | --- |
| `merge_method` | A method below, or `depth_upscale`. |
| `models` | Whole models, each with `model` and its own `parameters`. |
| `slices` | In place of `models`: layers stacked in this order, each from `sources` with `model`, `parameters` and \
`layer_range: [first, end]` (the end is not in it). What comes before the layers is the first slice's, what comes \
after them the last one's. A slice may have a `base_model` and `parameters` of its own. |
| `modules` | In place of both, for models of several parts: `models` or `slices` by the part's name, such as \
`text_decoder` and `vision_tower`. |
| `base_model` | The model that the others were made from, where the method knows one. |
| `parameters` | Numbers of the method: one value, a list that runs over the layers, or values by `filter`. |
| `dtype` | What inputs are cast to: `float16`, `bfloat16`, `float32` or `float64`. By default the widest of theirs. |
| `out_dtype` | What results are cast to. By default `dtype`. |
| `tokenizer_source` | `base`, `union`, or a model: whose tokens the output has. Rows of embeddings are matched by \
token; a token that a model lacks takes the base's row, else the mean of the models that have it. |
| `tokenizer` | The same with more to say: `source`, `pad_to_multiple_of`, and `tokens`, where each token may have a \
`source` (a model, `{kind: zero}`, or `{kind: model_token, model, token}` with `token_id` in place of `token`) and \
`force`, by which models that have the token take that row too. |
| `chat_template` | `auto` (the models' most common), a template that ships with ftk, or the text of one. |
| `seed` | Of what is random, so that the same file gives the same bytes. Default: 0. |

`depth_upscale` takes one model and stacks it upon itself: all layers but the last `drop`, then all but the first
(SOLAR, arXiv:2312.15166). Default of `drop`: a quarter of the layers. The result needs further training.

A file with `experts` is a mixture of experts, in the format of mergekit-moe: `base_model`; `experts`, each with
`source_model`, `positive_prompts`, `negative_prompts`, `noise_scale` and `residual_scale`; `shared_experts` likewise;
`experts_per_token`; `architecture`; and `gate_mode`, how routers begin: `hidden` (from the base's states at the last
token of each prompt), `hidden_avg` (at all of them), `cheap_embed`, `random` or `uniform`.

## Methods

A parameter of a model stands beside it, or in the outer `parameters` for all; one of the merge in the outer
`parameters` only.
"""


def merge_page() -> str:
    """The page, in Markdown."""
    return "\n".join([_HEAD, *(_method(name, method_named(name)) for name in NAMES)])


def _method(name: str, section: Any) -> str:
    parts = [f"### `{name}`\n\n{summary(section)}\n\n{_takes(section)}\n"]
    if section.per_model:
        rows = [f"| `{one.name}` | {_range(one)} | {one.meaning} {_default(one)} |" for one in section.per_model]
        parts.append("\n".join(["| of a model | takes | meaning |", "| --- | --- | --- |", *rows, ""]))
    parts += section_table(section, prefix="", title="of the merge")
    return "\n".join(parts)


def _takes(section: Any) -> str:
    lowest, highest = section.num_models
    models = f"{lowest}" if lowest == highest else f"{lowest} or more" if highest is None else f"{lowest} to {highest}"
    base = {
        "required": "beside `base_model`, which it needs",
        "optional": "beside `base_model`, if one is named",
        "never": "without a base",
    }[section.needs_base]
    return f"Models: {models}, {base}."


def _range(parameter: Parameter) -> str:
    low, high = f" ≥ {parameter.lowest:g}", f" ≤ {parameter.highest:g}"
    bounds = (low if parameter.lowest > float("-inf") else "") + (high if parameter.highest < float("inf") else "")
    return f"number{bounds}"


def _default(parameter: Parameter) -> str:
    return "Required." if parameter.default is None else f"Default: `{parameter.default:g}`."
