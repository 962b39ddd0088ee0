"""A stage of a chain once it is complete."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftk.recipe.load import LoadedRecipe
from ftk.recipe.stage_answers import answers_file
from ftk.recipe.stages import LoadedStage


@dataclass(frozen=True)
class Done:
    """A stage that is complete."""

    stage: LoadedStage
    recipe: LoadedRecipe
    """With the model that it started from."""
    folder: Path
    status: str
    """`skipped`, `resumed`, `trained` or `answered`."""
    answer: Mapping[str, object] | None
    """What its run came to; None where it was complete before."""

    @property
    def answers_file(self) -> str:
        """Where its answers are, of a stage that generates."""
        return answers_file(str(self.folder))

    def as_json(self) -> dict[str, Any]:
        left = (
            {"answers_file": self.answers_file}
            if self.stage.generates
            else {"model_folder": str(self.folder / "model")}
        )
        return {
            "id": self.stage.id,
            "from": self.stage.start.id if self.stage.start is not None else None,
            "status": self.status,
            "run_folder": str(self.folder),
            **left,
            "run": self.answer,
        }
