"""A stage of a chain once it is complete."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.recipe.load import LoadedRecipe
from ftk.recipe.stages import LoadedStage


@dataclass(frozen=True)
class Done:
    """A stage that is complete."""

    stage: LoadedStage
    recipe: LoadedRecipe
    """With the model that it started from."""
    folder: Path
    status: str
    """`skipped`, `resumed` or `trained`."""
    answer: Mapping[str, object] | None
    """What its run came to; None where it was complete before."""

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.stage.id,
            "from": self.stage.start.id if self.stage.start is not None else None,
            "status": self.status,
            "run_folder": str(self.folder),
            "model_folder": str(self.folder / "model"),
            "run": self.answer,
        }
