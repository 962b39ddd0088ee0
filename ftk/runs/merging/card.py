"""The card of what a merge writes: where it comes from, by which settings, under which licences."""

from collections.abc import Iterable, Mapping, Sequence

from ftk import __version__
from ftk.models.locate import ModelPlace
from ftk.recipe.yaml_text import write_yaml

NO_LICENCE = "not stated: look it up before you share this model"
Files = Mapping[str, Mapping[str, str]]
"""SHA-256 of files of weights by their names, by the model or adapter that they are of."""


def models_card(
    name: str,
    method: str,
    configuration: str,
    places: Mapping[str, ModelPlace],
    files: Files,
    *,
    warnings: Sequence[str],
) -> str:
    """The card of models merged into one, in Markdown with the header that hubs read.

    Args:
        name: what the model is called.
        method: by which the models were merged.
        configuration: the resolved file of the merge.
        places: where the models were found.
        files: of the models.
        warnings: what was told while merging.
    """
    many = f"a merge of {len(places)} models" if len(places) > 1 else "made of one model"
    return _page(
        _header(places.values(), library="transformers"),
        name,
        f"This is {many} by `{method}`, made with ftk {__version__}.",
        _licences(places),
        *([[f"- {warning}" for warning in warnings]] if warnings else []),
        ["## Configuration", "", "```yaml", configuration.rstrip(), "```"],
        _sources(files, places),
    )


def adapters_card(
    name: str,
    how: str,
    base: ModelPlace | str,
    adapters: Sequence[tuple[str, str, float]],
    files: Files,
    *,
    is_adapter: bool = False,
    base_precision: str | None = None,
) -> str:
    """The card of adapters folded into their base, or put together into one.

    Args:
        name: what the result is called.
        how: several became one.
        base: where it was found, or what it is called.
        adapters: name, kind and weight of each.
        files: of the base and the adapters.
        is_adapter: whether the result is an adapter beside the base.
        base_precision: which of the base's weights were taken, if it was in few bits.
    """
    places = {base.name: base} if isinstance(base, ModelPlace) else {}
    base_name = base if isinstance(base, str) else base.name
    many = "an adapter" if len(adapters) == 1 else f"{len(adapters)} adapters"
    by = f" by `{how}`" if len(adapters) > 1 else ""
    made = (
        f"an adapter for `{base_name}`, put together from {many}"
        if is_adapter
        else f"`{base_name}` with {many} folded into its weights"
    )
    return _page(
        _header(places.values() or [base_name], library="peft" if is_adapter else "transformers"),
        name,
        f"This is {made}{by}, made with ftk {__version__}.",
        *([[f"The weights of the base are the {base_precision} ones."]] if base_precision else []),
        ["| adapter | kind | weight |", "| --- | --- | --- |"]
        + [f"| `{one}` | {kind} | {weight:g} |" for one, kind, weight in adapters],
        *([_licences(places)] if places else []),
        _sources(files, places),
    )


def extracted_card(name: str, base: ModelPlace, tuned: ModelPlace, files: Files) -> str:
    """The card of an adapter that was taken out of two models."""
    places = {base.name: base, tuned.name: tuned}
    return _page(
        _header([base], library="peft"),
        name,
        f"This is an adapter for `{base.name}`, taken out of it and `{tuned.name}`, made with ftk {__version__}.",
        _licences(places),
        _sources(files, places),
    )


def _page(header: Mapping[str, object], name: str, about: str, *parts: Sequence[str]) -> str:
    blocks = [["---", write_yaml(dict(header)).rstrip(), "---"], [f"# {name}"], [about], *parts]
    return "\n\n".join("\n".join(block) for block in blocks) + "\n"


def _header(bases: Iterable[ModelPlace | str], *, library: str) -> dict[str, object]:
    bases = list(bases)
    places = [base for base in bases if isinstance(base, ModelPlace)]
    header: dict[str, object] = {
        "base_model": [base if isinstance(base, str) else base.hub_id or base.name for base in bases]
    }
    licences = list(dict.fromkeys(place.licence for place in places if place.licence))
    if len(licences) == 1 and all(place.licence for place in places):
        header["license"] = licences[0]
    elif licences:
        header |= {"license": "other", "license_name": " and ".join(licences)}
    return {**header, "library_name": library, "tags": ["ftk", "merge"]}


def _licences(places: Mapping[str, ModelPlace]) -> list[str]:
    rows = [f"| `{name}` | {place.licence or NO_LICENCE} |" for name, place in places.items()]
    return ["| model | licence |", "| --- | --- |", *rows]


def _sources(files: Files, places: Mapping[str, ModelPlace]) -> list[str]:
    rows = [f"| `{name}` {file} | `{digest}` |" for name, found in files.items() for file, digest in found.items()]
    rows += [f"| `{name}` revision | `{place.revision}` |" for name, place in places.items() if place.revision]
    return ["## Sources", "", "| file | SHA-256 |", "| --- | --- |", *rows]
