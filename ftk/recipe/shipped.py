"""The recipes that ship with ftk."""

from dataclasses import dataclass
from pathlib import Path

SCHEMA_FILE = "recipe.schema.json"
"""The JSON Schema beside the recipes, which each names in its first line for editors."""


@dataclass(frozen=True)
class ShippedRecipe:
    """One recipe file."""

    path: Path

    @property
    def name(self) -> str:
        """What `ftk recipe show` calls it."""
        return self.path.stem

    @property
    def line(self) -> str:
        """What it is for: the first comment after the line for editors."""
        comments = (line.removeprefix("#").strip() for line in self.path.read_text(encoding="utf-8").splitlines())
        return next(comment for comment in comments if comment and not comment.startswith("yaml-language-server"))


def shipped_folder() -> Path:
    """Where the recipes are: in the installed package, or in the checkout that it runs from."""
    package = Path(__file__).parent
    installed = package / "shipped_files"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def shipped_recipes() -> list[ShippedRecipe]:
    """All of them by name, the one to begin with first."""
    paths = sorted(shipped_folder().glob("*.yaml"), key=lambda path: (path.stem != "quickstart", path.name))
    return [ShippedRecipe(path) for path in paths]
