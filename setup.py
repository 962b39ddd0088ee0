"""Puts `recipes/` into the wheel as `ftk/recipe/shipped_files`; everything else is said in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

RECIPES = Path("recipes")
TARGET = "ftk/recipe/shipped_files"


class BuildWithRecipes(build_py):
    def run(self) -> None:
        super().run()
        # From an editable install ftk reads the checkout's own recipes/.
        if not self.editable_mode:
            for source, target in self._recipes().items():
                Path(target).parent.mkdir(parents=True, exist_ok=True)
                self.copy_file(source, target)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), *self._recipes().values()]

    def _recipes(self) -> dict[str, str]:
        files = (path for path in sorted(RECIPES.iterdir()) if path.suffix in (".yaml", ".json", ".md"))
        return {str(path): str(Path(self.build_lib, TARGET, path.name)) for path in files}


setup(cmdclass={"build_py": BuildWithRecipes})
