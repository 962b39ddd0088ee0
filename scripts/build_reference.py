"""Write what follows from the code: recipes/REFERENCE.md, recipes/MERGE.md and recipes/recipe.schema.json."""

import json
from pathlib import Path

from ftk.recipe.json_schema import recipe_schema
from ftk.recipe.merge_reference import merge_page
from ftk.recipe.reference import reference_page
from ftk.recipe.shipped import SCHEMA_FILE

FOLDER = Path(__file__).parents[1] / "recipes"


def main() -> None:
    (FOLDER / "REFERENCE.md").write_text(reference_page(), encoding="utf-8")
    (FOLDER / "MERGE.md").write_text(merge_page(), encoding="utf-8")
    schema = json.dumps(recipe_schema(), indent=2, ensure_ascii=False)
    (FOLDER / SCHEMA_FILE).write_text(f"{schema}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
