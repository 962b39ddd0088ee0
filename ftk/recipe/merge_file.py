"""From a merge's file, as mergekit writes it, to one checked `Merge`, or to one error with everything wrong in it.

Source of the format: mergekit's README, "Merge Configuration", and its mergekit/config.py.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from ftk.core.errors import RecipeError
from ftk.merging.configuration import Merge, ModelName, Module, Slice, Source, TokenRow, Tokens, Upscale
from ftk.merging.methods import NAMES, method_named
from ftk.merging.mixture import Mixture
from ftk.merging.parameters import Setting
from ftk.recipe.merge_keys import Checked
from ftk.recipe.merge_names import dtype_named, model_name
from ftk.recipe.merge_parameters import MethodParameters
from ftk.recipe.moe_file import is_mixture, read_mixture
from ftk.recipe.problems import listed
from ftk.recipe.shapes import nearest
from ftk.recipe.written import Written
from ftk.recipe.yaml_text import decode, read_yaml

KEYS = (
    "merge_method",
    "base_model",
    "models",
    "slices",
    "modules",
    "parameters",
    "dtype",
    "out_dtype",
    "tokenizer_source",
    "tokenizer",
    "chat_template",
    "seed",
)
PARTS = ("models", "slices", "modules")
DEPTH_UPSCALE = "depth_upscale"
"""Not a method of its own but a word for slices: the layers twice, the middle ones overlapping."""


def load_merge(path: str, *, environment: Mapping[str, str] | None = None) -> Merge | Mixture:
    """Read the file of a merge, or of a mixture of experts, and check all of it.

    Raises:
        RecipeError: the file cannot be read or is no YAML, or anything in it is wrong; every violation has its line.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", place=path) from error
    checked = Checked()
    variables = os.environ if environment is None else environment
    written = read_yaml(decode(content, path), path, environment=variables, problems=checked.problems)
    if written.value is None:
        raise RecipeError("is empty, expected merge_method and models", place=path)
    merge = read_mixture(checked, written) if is_mixture(written) else _Reader(checked).merge(written)
    if merge is None or checked.problems:
        raise listed(checked.problems)
    return merge


class _Reader:
    def __init__(self, checked: Checked) -> None:
        self._checked = checked

    def merge(self, root: Written) -> Merge | None:
        items = self._checked.mapping(root, "", KEYS)
        method = self._method(items.get("merge_method"), root)
        if method is None:
            return None
        is_upscale = method == DEPTH_UPSCALE
        section: Any = method_named("passthrough" if is_upscale else method)
        self._parameters = MethodParameters(section, self._checked)
        return Merge(
            name=method,
            method=section.model_construct(),
            modules=self._modules(items, root),
            base=self._model(items.get("base_model"), "base_model"),
            parameters=self._read(items, "", of_one_model=False) if not is_upscale else {},
            upscale=self._upscale(items, root) if is_upscale else None,
            dtype=dtype_named(self._checked, items, "dtype"),
            out_dtype=dtype_named(self._checked, items, "out_dtype"),
            tokens=self._tokens(items),
            chat_template=self._checked.text(items, "chat_template", ""),
            seed=self._checked.whole(items, "seed", "", lowest=0) or 0,
        )

    def _method(self, node: Written | None, root: Written) -> str | None:
        names = [*NAMES, DEPTH_UPSCALE]
        if node is None:
            # A file that is no mapping, and a misspelled key, were told by now.
            if isinstance(root.value, dict) and "merge_method" not in {
                nearest(key, KEYS) for key in root.value if key not in KEYS
            }:
                self._checked.refuse(root, f"merge_method is missing, expected one of {', '.join(names)}")
            return None
        if node.value in names:
            return str(node.value)
        near = nearest(str(node.value), names)
        hint = f". Did you mean {near}?" if near else f", expected one of {', '.join(names)}"
        self._checked.refuse(node, f"merge_method is {node.shown()}{hint}")
        return None

    def _read(self, items: Mapping[str, Written], path: str, *, of_one_model: bool) -> dict[str, Setting]:
        where = f"{path}.parameters" if path else "parameters"
        return self._parameters.read(items.get("parameters"), where, of_one_model=of_one_model)

    def _modules(self, items: Mapping[str, Written], root: Written) -> tuple[Module, ...]:
        given = [key for key in PARTS if key in items]
        if len(given) != 1:
            found = f"found {' and '.join(given)}" if given else "found none"
            self._checked.refuse(items[given[1]] if given else root, f"expected one of {', '.join(PARTS)}, {found}")
            return ()
        if given != ["modules"]:
            return (Module("default", self._slices(items, ""), items[given[0]].place),)
        node = items["modules"]
        if not isinstance(node.value, dict) or not node.value:
            self._checked.refuse(node, f"modules is {node.shown()}, expected a mapping of modules by name")
            return ()
        return tuple(self._module(name, item) for name, item in node.value.items())

    def _upscale(self, items: Mapping[str, Written], root: Written) -> Upscale:
        models = items.get("models")
        if models is None or not isinstance(models.value, list) or len(models.value) != 1:
            self._checked.refuse(models or root, f"{DEPTH_UPSCALE} expects models with one model")
        node = items.get("parameters")
        found = self._checked.mapping(node, "parameters", ("drop",)) if node is not None else {}
        return Upscale(self._checked.whole(found, "drop", "parameters", lowest=1))

    def _module(self, name: str, node: Written) -> Module:
        path = f"modules.{name}"
        items = self._checked.mapping(node, path, ("models", "slices", "parameters"))
        if ("models" in items) == ("slices" in items):
            self._checked.refuse(node, f"{path} has {'both' if items else 'neither'}, expected models or slices")
            return Module(name, (), node.place)
        return Module(name, self._slices(items, path), node.place, self._read(items, path, of_one_model=False))

    def _slices(self, items: Mapping[str, Written], path: str) -> tuple[Slice, ...]:
        prefix = f"{path}." if path else ""
        if "models" in items:
            node = items["models"]
            sources = [self._source(*item, with_layers=False) for item in self._checked.items(node, f"{prefix}models")]
            kept = tuple(source for source in sources if source is not None)
            return (Slice(kept, node.place),)
        return tuple(self._slice(*item) for item in self._checked.items(items["slices"], f"{prefix}slices"))

    def _slice(self, path: str, node: Written) -> Slice:
        items = self._checked.mapping(node, path, ("sources", "base_model", "parameters", "residual_weight"))
        if "residual_weight" in items:
            self._checked.refuse(items["residual_weight"], f"{path}.residual_weight has no effect. Leave it out")
        if "sources" not in items:
            self._checked.refuse(node, f"{path}.sources is missing: the models whose layers it is made of")
        listed_sources = self._checked.items(items.get("sources"), f"{path}.sources")
        sources = [self._source(*item, with_layers=True) for item in listed_sources]
        return Slice(
            tuple(source for source in sources if source is not None),
            node.place,
            base=self._model(items.get("base_model"), f"{path}.base_model"),
            parameters=self._read(items, path, of_one_model=False),
        )

    def _source(self, path: str, node: Written, *, with_layers: bool) -> Source | None:
        known = ("model", "layer_range", "parameters") if with_layers else ("model", "parameters")
        items = self._checked.mapping(node, path, known)
        for key in known[:-1]:
            if key not in items and isinstance(node.value, dict):
                self._checked.refuse(node, f"{path}.{key} is missing")
        model = self._model(items.get("model"), f"{path}.model")
        layers = self._layers(items.get("layer_range"), f"{path}.layer_range")
        parameters = self._read(items, path, of_one_model=True)
        return None if model is None else Source(model, node.place, layers, parameters)

    def _layers(self, node: Written | None, path: str) -> tuple[int, int] | None:
        if node is None:
            return None
        data = node.data()
        if isinstance(data, list) and len(data) == 2 and all(type(part) is int for part in data):
            first, end = data
            if 0 <= first < end:
                return first, end
        self._checked.refuse(
            node, f"{path} is {data}, expected [first, end]: the first layer, and the one after the last"
        )
        return None

    def _model(self, node: Written | None, path: str) -> ModelName | None:
        return model_name(self._checked, node, path)

    def _tokens(self, items: Mapping[str, Written]) -> Tokens | None:
        if "tokenizer" in items and "tokenizer_source" in items:
            self._checked.refuse(items["tokenizer_source"], "tokenizer and tokenizer_source say the same: keep one")
        if "tokenizer" not in items:
            node = items.get("tokenizer_source")
            source = self._token_source(node, "tokenizer_source")
            return None if source is None else Tokens(source)
        found = self._checked.mapping(items["tokenizer"], "tokenizer", ("source", "tokens", "pad_to_multiple_of"))
        rows = found.get("tokens")
        named = rows.value.items() if rows is not None and isinstance(rows.value, dict) else ()
        if rows is not None and not isinstance(rows.value, dict):
            self._checked.refuse(rows, f"tokenizer.tokens is {rows.shown()}, expected a mapping of tokens")
        return Tokens(
            self._token_source(found.get("source"), "tokenizer.source") or "union",
            {token: self._row(node, f"tokenizer.tokens.{token}") for token, node in named},
            self._checked.whole(found, "pad_to_multiple_of", "tokenizer", lowest=1),
        )

    def _token_source(self, node: Written | None, path: str) -> ModelName | Literal["base", "union"] | None:
        if node is not None and node.value == "base":
            return "base"
        return "union" if node is not None and node.value == "union" else self._model(node, path)

    def _row(self, node: Written, path: str) -> TokenRow:
        if node.value is None:
            return TokenRow()
        items = self._checked.mapping(node, path, ("source", "force"))
        force = self._checked.flag(items, "force", path)
        source = items.get("source")
        if source is None or not isinstance(source.value, dict) or "kind" not in source.value:
            return TokenRow(self._model(source, f"{path}.source"), force=force)
        path = f"{path}.source"
        found = self._checked.mapping(source, path, ("kind", "model", "token", "token_id"))
        kind = found["kind"].value if "kind" in found else None
        if kind == "zero":
            return TokenRow("zero", force=force)
        if kind != "model_token" or "model" not in found or ("token" in found) == ("token_id" in found):
            self._checked.refuse(
                source, f"{path}: expected kind: zero, or kind: model_token with model and either token or token_id"
            )
        return TokenRow(
            self._model(found.get("model"), f"{path}.model"),
            token=self._checked.text(found, "token", path),
            token_id=self._checked.whole(found, "token_id", path, lowest=0),
            force=force,
        )
