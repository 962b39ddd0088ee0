"""The positions that adapters were trained at, where these are not their base's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ftk.core.errors import RecipeError
from ftk.models.extend import saved_context


def common_context(adapter_folders: Sequence[Path]) -> dict[str, Any] | None:
    """Keys of config.json that tell the positions of what the adapters become; None where they are the base's.

    Raises:
        RecipeError: the adapters were trained at different ones.
        ModelError: what a folder says of them cannot be read.
    """
    found = [saved_context(folder) for folder in adapter_folders]
    for folder, context in zip(adapter_folders, found, strict=True):
        if context != found[0]:
            raise RecipeError(
                f"{adapter_folders[0]} and {folder} were trained at different positions (context.json), so no one "
                "model fits both. Merge adapters of one model.context",
                place="--adapter",
            )
    return found[0] if found else None
