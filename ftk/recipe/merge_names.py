"""How a merge's file names models and number formats."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from ftk.merging.configuration import ModelName
from ftk.recipe.merge_keys import Checked
from ftk.recipe.shapes import nearest
from ftk.recipe.written import Written

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


def model_name(checked: Checked, node: Written | None, path: str) -> ModelName | None:
    """`id`, `id@revision`, `id+adapter`, or mergekit's mapping of the same; what is wrong with it is noted."""
    if node is None or node.value is None:
        return None
    if isinstance(node.value, dict):
        items = checked.mapping(node, path, ("model", "lora", "path", "revision"))
        if "path" in items:
            return ModelName(checked.text(items, "path", path) or "", checked.text(items, "revision", path))
        model = model_name(checked, items.get("model"), f"{path}.model")
        lora = model_name(checked, items.get("lora"), path)
        if model is None:
            checked.refuse(node, f"{path}.model is missing")
            return None
        return replace(model, adapter=lora.id, adapter_revision=lora.revision) if lora is not None else model
    text = node.text or ""
    if isinstance(node.value, list) or not text:
        checked.refuse(node, f"{path} is {node.shown()}, expected a hub id or a folder")
        return None
    # A folder may be called so itself.
    model_text, _, adapter_text = (text, "", "") if Path(text).expanduser().exists() else text.partition("+")
    name, revision = _parted(model_text)
    adapter, adapter_revision = _parted(adapter_text)
    return ModelName(name, revision, adapter or None, adapter_revision)


def dtype_named(checked: Checked, items: Mapping[str, Written], key: str) -> torch.dtype | None:
    """The number format under a key."""
    text = checked.text(items, key, "")
    if text is None:
        return None
    found = DTYPES.get(text.removeprefix("torch."))
    if found is None:
        near = nearest(text, DTYPES)
        hint = f". Did you mean {near}?" if near else ""
        checked.refuse(items[key], f"{key} is {text!r}, expected one of {', '.join(DTYPES)}{hint}")
    return found


def _parted(text: str) -> tuple[str, str | None]:
    """Name and revision of `name@revision`."""
    name, _, revision = text.rpartition("@") if "@" in text else (text, "", "")
    return name, revision or None
