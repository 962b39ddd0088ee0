"""`model.context` of what stages share: positions are extended once along a chain, attention is each stage's own."""

from collections.abc import Collection
from dataclasses import replace

from ftk.recipe.written import Written

EXTENSION = ("length", "scaling")


def takes_extension(sections: Written) -> bool:
    """Whether a stage of these sections leaves it to the shared part how far its model reads."""
    model = sections.child("model")
    own = None if model is None else model.child("context")
    return own is None or (isinstance(own.value, dict) and not set(EXTENSION) & set(own.value))


def extended_before(shared: Written, sections: Written) -> Written:
    """The shared part for a stage whose model reads as far as that says already.

    It would be extended again, by NTK-aware scaling or a factor even further.
    """
    model = shared.child("model")
    context = None if model is None else model.child("context")
    if model is None or context is None:
        return shared
    own = (sections.child("model") or sections).child("context")
    kept = _without(context, EXTENSION)
    if own is not None and own.child("length") is not None and (way := context.child("scaling")) is not None:
        # A stage with a length of its own means the way of the shared part.
        kept = _with(kept, "scaling", _without(way, ["factor"]))
    return _with(shared, "model", _with(model, "context", kept))


def without_empty_context(written: Written) -> Written:
    """A stage without a `model.context` of which nothing is left to say."""
    model = written.child("model")
    context = None if model is None else model.child("context")
    if model is None or context is None or not isinstance(context.value, dict):
        return written
    if any(item.value is not None for item in context.value.values()):
        return written
    return _with(written, "model", _without(model, ["context"]))


def _with(written: Written, key: str, item: Written) -> Written:
    assert isinstance(written.value, dict)
    return replace(written, value={**written.value, key: item})


def _without(written: Written, keys: Collection[str]) -> Written:
    if not isinstance(written.value, dict):
        return written
    return replace(written, value={key: item for key, item in written.value.items() if key not in keys})
