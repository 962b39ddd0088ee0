"""A merge written back as a file, with every default filled in."""

from collections.abc import Mapping
from typing import Any

from ftk.merging.configuration import Merge, ModelName, Slice, Source, TokenRow, Tokens
from ftk.recipe.merge_parameters import as_written
from ftk.recipe.yaml_text import write_yaml


def resolved_merge(merge: Merge) -> str:
    """YAML that loads to the same merge, and to no other once defaults have changed."""
    data: dict[str, Any] = {"merge_method": merge.name}
    if merge.base is not None:
        data["base_model"] = str(merge.base)
    data |= _parts(merge)
    parameters = {} if merge.upscale else _defaults(merge) | as_written(merge.parameters)
    if merge.upscale is not None and merge.upscale.drop is not None:
        parameters["drop"] = merge.upscale.drop
    data |= {"parameters": parameters} if parameters else {}
    for key, dtype in (("dtype", merge.dtype), ("out_dtype", merge.out_dtype)):
        if dtype is not None:
            data[key] = str(dtype).removeprefix("torch.")
    if merge.tokens is not None:
        data["tokenizer"] = _tokens(merge.tokens)
    if merge.chat_template is not None:
        data["chat_template"] = merge.chat_template
    return write_yaml({**data, "seed": merge.seed})


def _defaults(merge: Merge) -> dict[str, object]:
    method: Any = merge.method
    per_model = {one.name: one.default for one in method.per_model if one.default is not None}
    whole = {
        info.alias or name: info.get_default(call_default_factory=True)
        for name, info in type(method).model_fields.items()
        if name != "name" and not info.is_required()
    }
    return {name: value for name, value in {**per_model, **whole}.items() if value is not None}


def _parts(merge: Merge) -> dict[str, Any]:
    if [module.name for module in merge.modules] == ["default"]:
        return _slices(merge.modules[0].slices)
    return {
        "modules": {
            module.name: {
                **_slices(module.slices),
                **({"parameters": as_written(module.parameters)} if module.parameters else {}),
            }
            for module in merge.modules
        }
    }


def _slices(slices: tuple[Slice, ...]) -> dict[str, Any]:
    if all(source.layers is None for one in slices for source in one.sources):
        return {"models": [_source(source) for source in slices[0].sources]}
    return {"slices": [_slice(one) for one in slices]}


def _slice(one: Slice) -> dict[str, Any]:
    data: dict[str, Any] = {"sources": [_source(source) for source in one.sources]}
    if one.base is not None:
        data["base_model"] = str(one.base)
    return data | ({"parameters": as_written(one.parameters)} if one.parameters else {})


def _source(source: Source) -> dict[str, Any]:
    data: dict[str, Any] = {"model": str(source.model)}
    if source.layers is not None:
        data["layer_range"] = list(source.layers)
    return data | ({"parameters": as_written(source.parameters)} if source.parameters else {})


def _tokens(tokens: Tokens) -> dict[str, Any]:
    data: dict[str, Any] = {"source": str(tokens.source)}
    if tokens.rows:
        data["tokens"] = {token: _row(row) for token, row in tokens.rows.items()}
    if tokens.pad_to_multiple_of is not None:
        data["pad_to_multiple_of"] = tokens.pad_to_multiple_of
    return data


def _row(row: TokenRow) -> Mapping[str, Any]:
    source: Any = None
    if row.source == "zero":
        source = {"kind": "zero"}
    elif isinstance(row.source, ModelName):
        named = {"token": row.token} if row.token is not None else {"token_id": row.token_id}
        is_named = row.token is not None or row.token_id is not None
        source = {"kind": "model_token", "model": str(row.source), **named} if is_named else str(row.source)
    return ({"source": source} if source is not None else {}) | ({"force": True} if row.force else {})
