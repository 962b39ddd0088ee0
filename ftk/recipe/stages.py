"""`stages:`: a chain of recipes in one file, each of which says only what differs from the part that all share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import Field

from ftk.core.config import Section
from ftk.core.errors import RecipeError
from ftk.recipe.load import LoadedRecipe
from ftk.recipe.schema import Recipe
from ftk.recipe.stage_answers import TAKES, Generate, answers_file, no_such_stage, with_sources
from ftk.recipe.written import Written
from ftk.recipe.yaml_text import write_yaml

NOT_SETTLED = {"dropout", "also_learning_rate"}
"""Settings of an adapter that may change while it goes on."""


class Stage(Section):
    """What a stage has besides the sections of a recipe, any of which it may change."""

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    """Its name: of its folder within the chain's, and of what later stages and overrides call it."""
    from_: Annotated[str | None, Field(alias="from")] = None
    """Id of the earlier stage whose model it starts from; null is the one before.

    A stage with a `model.id` of its own starts from that model instead."""
    merge: bool | None = None
    """Whether the adapter that it starts from is first folded into its base, and a new one begun above the result.

    null does so where it must: the stage asks for another rank, other modules or another quantization. false goes on
    with the adapter."""
    generate: Generate | None = None
    """Its model answers the questions of `data.train` instead of being trained.

    Questions are rows as in training, whose own answers are not looked at, or rows without one: `question`, `prompt`
    or `instruction` alone, or `messages` that end with a question. What it writes is `answers.jsonl` in the stage's
    folder, which later stages name as the source `ftk://stages/ID`. It has no model of its own."""


@dataclass(frozen=True)
class LoadedStage:
    """One stage as a recipe of its own."""

    settings: Stage
    loaded: LoadedRecipe
    """With the folders that the chain has where none of its stages was ever trained anew."""
    start: "LoadedStage | None"
    """The stage whose model it starts from; None where it names a model."""
    reads: frozenset[str] = frozenset()
    """Files of answers, of earlier stages in the folders that `loaded` has, which its rows are in."""

    @property
    def id(self) -> str:
        return self.settings.id

    @property
    def merges(self) -> bool:
        """Whether the adapter that it starts from becomes part of its base first."""
        if self.generates:
            return False
        return self.start is not None and _merges(self.settings, self.start.loaded.recipe, self.loaded.recipe)

    @property
    def generates(self) -> bool:
        """Whether it writes answers, and trains no model."""
        return self.settings.generate is not None

    @property
    def answers_file(self) -> str:
        """Where its answers are, in the folder that `loaded` has."""
        return answers_file(self.loaded.recipe.output.folder)

    def at(self, *, folder: str, model: str, answers: Mapping[str, str]) -> LoadedRecipe:
        """The stage's recipe in this folder, from this model; `answers` are files in place of those that it `reads`."""
        written = with_value(with_value(self.loaded.written, "output", "folder", folder), "model", "id", model)
        written = with_sources(written, answers)
        return LoadedRecipe(Recipe.model_validate(written.data()), self.loaded.file, written)

    def resolved(self, loaded: LoadedRecipe) -> dict[str, Any]:
        """What decides the result of the stage, of which `loaded` is the recipe, as JSON values."""
        resolved, how = loaded.resolved(), self.settings.generate
        if how is None:
            return resolved
        kept = {
            section: {key: value for key, value in resolved[section].items() if key in keys}
            if keys
            else resolved[section]
            for section, keys in TAKES.items()
        }
        return {"generate": how.model_dump(mode="json"), **kept}


@dataclass(frozen=True)
class LoadedChain:
    """A chain of stages, checked."""

    file: str
    folder: str
    """Where the stages' folders are."""
    stages: tuple[LoadedStage, ...]

    @property
    def advice(self) -> list[str]:
        """What is unusual, each with its place; what several stages share is told once."""
        trained = (stage.loaded for stage in self.stages if not stage.generates)
        return list(dict.fromkeys(line for loaded in trained for line in loaded.advice))

    def stage(self, id: str) -> LoadedStage:
        """The stage of this id.

        Raises:
            RecipeError: there is none.
        """
        found = next((stage for stage in self.stages if stage.id == id), None)
        if found is None:
            raise RecipeError(no_such_stage(id, [stage.id for stage in self.stages]), place=self.file)
        return found

    def resolved(self) -> dict[str, Any]:
        """Every stage in full, as JSON values."""
        return {"stages": [_resolved(stage) for stage in self.stages]}

    def as_yaml(self) -> str:
        """The chain with nothing shared and every default said, as a file that loads to the same stages."""
        return write_yaml({"output": {"folder": self.folder}, **self.resolved()})


def with_value(written: Written, section: str, key: str, value: str) -> Written:
    """The recipe with another value of a section's key."""
    assert isinstance(written.value, dict)
    inner = written.value.get(section)
    place = written.place if inner is None else inner.place
    items = inner.value if inner is not None and isinstance(inner.value, dict) else {}
    changed = Written({**items, key: Written(value, place, text=value)}, place)
    return replace(written, value={**written.value, section: changed})


def _merges(settings: Stage, before: Recipe, recipe: Recipe) -> bool:
    if before.tuning.name == "full":
        return False
    if settings.merge is not None:
        return settings.merge
    if before.quantization != recipe.quantization:
        return True
    # Full tuning takes an adapter into its weights by itself.
    settled = [one.model_dump(exclude=NOT_SETTLED) for one in (before.tuning, recipe.tuning)]
    return recipe.tuning.name != "full" and settled[0] != settled[1]


def _resolved(stage: LoadedStage) -> dict[str, Any]:
    resolved = stage.resolved(stage.loaded)
    about: dict[str, Any] = {"id": stage.id}
    if stage.start is not None:
        about["from"] = stage.start.id
        if not stage.generates:
            about["merge"] = stage.merges
        resolved["model"] = {key: value for key, value in resolved["model"].items() if key != "id"}
    return {**about, **resolved}
