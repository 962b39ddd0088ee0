"""Ways to merge models tensor by tensor: one file each, called as the method is, and one name here.

A merge needs one of them, and a command is to start at once: importing them all takes a tenth of a second.
"""

from importlib import import_module
from typing import cast

from ftk.core.config import Section

NAMES = (
    "linear",
    "slerp",
    "nuslerp",
    "multislerp",
    "karcher",
    "task_arithmetic",
    "ties",
    "dare_linear",
    "dare_ties",
    "breadcrumbs",
    "breadcrumbs_ties",
    "della",
    "della_linear",
    "model_stock",
    "sce",
    "nearswap",
    "arcee_fusion",
    "passthrough",
)
"""In the order in which they are told."""


def method_named(name: str) -> type[Section]:
    """The settings of a method, which keep to `ftk.merging.method.Method`: `DareTies` of `dare_ties`."""
    module = import_module(f"{__name__}.{name}")
    return cast(type[Section], getattr(module, name.title().replace("_", "")))
