"""A mixture of experts as its file says it, in the format of mergekit-moe.

Source of the format: mergekit's docs/moe.md, and its mergekit/moe/config.py.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args

from ftk.merging.mixture import PROMPTED, Expert, GateMode, Mixture
from ftk.recipe.merge_keys import Checked
from ftk.recipe.merge_names import dtype_named, model_name
from ftk.recipe.shapes import nearest
from ftk.recipe.written import Written
from ftk.recipe.yaml_text import write_yaml

EXPERTS = "experts"
"""The key that a mixture has and other merges have not."""
KEYS = (
    "base_model",
    EXPERTS,
    "gate_mode",
    "dtype",
    "experts_per_token",
    "shared_experts",
    "architecture",
    "seed",
)
EXPERT_KEYS = ("source_model", "positive_prompts", "negative_prompts", "noise_scale", "residual_scale")
GATE_MODES: dict[str, GateMode] = {**{mode: mode for mode in get_args(GateMode)}, "uniform_random": "uniform"}
ARCHITECTURES = {name: name for name in ("mixtral", "qwen2_moe", "qwen3_moe")} | {
    "qwen": "qwen2_moe",
    "qwen3": "qwen3_moe",
}
"""What mergekit calls them, and transformers."""
Choice = TypeVar("Choice")


def is_mixture(root: Written) -> bool:
    """Whether a file is of a mixture of experts."""
    return isinstance(root.value, dict) and EXPERTS in root.value


def read_mixture(checked: Checked, root: Written) -> Mixture | None:
    """The mixture of a file; what is wrong with it is noted."""
    items = checked.mapping(root, "", KEYS)
    base = model_name(checked, items.get("base_model"), "base_model")
    if base is None:
        checked.refuse(root, "base_model is missing: the model that all but the experts is taken from")
    experts = _experts(checked, items, EXPERTS)
    shared = _experts(checked, items, "shared_experts")
    mode = _one_of(checked, items, "gate_mode", GATE_MODES) or "hidden"
    num_chosen = checked.whole(items, "experts_per_token", "", lowest=1) or 2
    if experts and num_chosen > len(experts):
        checked.refuse(
            items.get("experts_per_token", items[EXPERTS]),
            f"experts_per_token is {num_chosen}, expected 1 to the number of experts, {len(experts)}",
        )
    if mode in PROMPTED:
        _require_prompts(checked, items, experts, mode)
        _require_prompts(checked, items, shared, mode, key="shared_experts")
    architecture = _one_of(checked, items, "architecture", ARCHITECTURES)
    dtype = dtype_named(checked, items, "dtype")
    seed = checked.whole(items, "seed", "", lowest=0) or 0
    if base is None:
        return None
    return Mixture(
        base,
        tuple(experts),
        root.place,
        shared=tuple(shared),
        gate_mode=mode,
        experts_per_token=num_chosen,
        architecture=architecture,
        dtype=dtype,
        seed=seed,
    )


def _one_of(checked: Checked, items: Mapping[str, Written], key: str, choices: Mapping[str, Choice]) -> Choice | None:
    text = checked.text(items, key, "")
    if text is None or text in choices:
        return None if text is None else choices[text]
    near = nearest(text, choices)
    hint = f". Did you mean {near}?" if near else ""
    checked.refuse(items[key], f"{key} is {text!r}, expected one of {', '.join(choices)}{hint}")
    return None


def _experts(checked: Checked, items: Mapping[str, Written], key: str) -> list[Expert]:
    found = [_expert(checked, path, node) for path, node in checked.items(items.get(key), key)]
    return [one for one in found if one is not None]


def _expert(checked: Checked, path: str, node: Written) -> Expert | None:
    items = checked.mapping(node, path, EXPERT_KEYS)
    model = model_name(checked, items.get("source_model"), f"{path}.source_model")
    noise = _number(checked, items, "noise_scale", path, lowest=0.0)
    scale = _number(checked, items, "residual_scale", path, lowest=-math.inf)
    prompts = [_texts(checked, items, key, path) for key in ("positive_prompts", "negative_prompts")]
    if model is None:
        if isinstance(node.value, dict) and "source_model" not in items:
            checked.refuse(node, f"{path}.source_model is missing")
        return None
    return Expert(
        model,
        node.place,
        positive=prompts[0],
        negative=prompts[1],
        noise_scale=0.0 if noise is None else noise,
        residual_scale=1.0 if scale is None else scale,
    )


def _number(checked: Checked, items: Mapping[str, Written], key: str, path: str, *, lowest: float) -> float | None:
    node = items.get(key)
    if node is None:
        return None
    value = node.value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < lowest:
        least = "" if lowest == -math.inf else f" of at least {lowest:g}"
        checked.refuse(node, f"{path}.{key} is {node.shown()}, expected a number{least}")
        return None
    return float(value)


def _texts(checked: Checked, items: Mapping[str, Written], key: str, path: str) -> tuple[str, ...]:
    found: list[str] = []
    for where, node in checked.items(items.get(key), f"{path}.{key}"):
        text = None if isinstance(node.value, dict | list) else node.text
        if not text:
            checked.refuse(node, f"{where} is {node.shown()}, expected text")
        else:
            found.append(text)
    return tuple(found)


def _require_prompts(
    checked: Checked, items: Mapping[str, Written], experts: Sequence[Expert], mode: str, *, key: str = EXPERTS
) -> None:
    nodes = checked.items(items.get(key), key) if experts else []
    for path, node in nodes:
        if isinstance(node.value, dict) and "positive_prompts" not in node.value:
            checked.refuse(
                node,
                f"{path}.positive_prompts is missing: gate_mode {mode} makes routers of prompts. Give examples of what "
                "the expert is for, or set gate_mode: random or uniform for routers that will be trained",
            )
    prompts = {(one.positive, one.negative) for one in experts if one.positive}
    if len(experts) > 1 and len(nodes) == len(experts) and len(prompts) == 1:
        checked.refuse(
            items[key],
            f"all {key} have the same prompts, so that routers could not tell them apart. Give each its own, or set "
            "gate_mode: random or uniform for routers that will be trained",
        )


def resolved_mixture(mixture: Mixture) -> str:
    """YAML that loads to the same mixture, and to no other once defaults have changed."""
    data: dict[str, Any] = {"base_model": str(mixture.base)}
    data[EXPERTS] = [_written(one) for one in mixture.experts]
    if mixture.shared:
        data["shared_experts"] = [_written(one) for one in mixture.shared]
    data |= {"gate_mode": mixture.gate_mode, "experts_per_token": mixture.experts_per_token}
    if mixture.architecture is not None:
        data["architecture"] = mixture.architecture
    if mixture.dtype is not None:
        data["dtype"] = str(mixture.dtype).removeprefix("torch.")
    return write_yaml({**data, "seed": mixture.seed})


def _written(expert: Expert) -> dict[str, Any]:
    data: dict[str, Any] = {"source_model": str(expert.model)}
    for key, prompts in (("positive_prompts", expert.positive), ("negative_prompts", expert.negative)):
        if prompts:
            data[key] = list(prompts)
    return data | {"noise_scale": expert.noise_scale, "residual_scale": expert.residual_scale}
