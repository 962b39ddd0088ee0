"""From a file with `stages:` to a checked chain, or to one error that lists everything wrong with it."""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from pydantic import ValidationError

from ftk.core.errors import RecipeError
from ftk.recipe.explain import explained, unknown_key
from ftk.recipe.load import LoadedRecipe, checked, load_recipe, read_recipe
from ftk.recipe.overrides import overridden
from ftk.recipe.problems import listed
from ftk.recipe.schema import Recipe
from ftk.recipe.shapes import Shape, nearest, root_shape
from ftk.recipe.stage_answers import (
    ANSWERS,
    answers_file,
    no_such_stage,
    not_for_generating,
    part_for_generating,
    sources_among,
    unknown_answers,
    with_sources,
)
from ftk.recipe.stage_context import extended_before, takes_extension, without_empty_context
from ftk.recipe.stages import LoadedChain, LoadedStage, Stage, with_value
from ftk.recipe.written import Problem, Written, merged
from ftk.train.settings import Output


def load_stages(
    path: str, overrides: Sequence[str] = (), *, environment: Mapping[str, str] | None = None
) -> LoadedRecipe | LoadedChain:
    """Read a recipe, or a chain of them where the file has `stages`.

    Overrides change the shared part; `stages.ID.path=value` changes one stage, whose own word counts more.

    Raises:
        RecipeError: the file cannot be read, or anything in it is wrong; every violation has its line.
    """
    variables = os.environ if environment is None else environment
    problems: list[Problem] = []
    shape = root_shape(Recipe)
    written = read_recipe(path, variables, problems)
    assert isinstance(written.value, dict)
    listing = written.value.get("stages")
    if listing is None:
        return load_recipe(path, overrides, environment=environment)
    shared = replace(written, value={key: item for key, item in written.value.items() if key != "stages"})
    own = _entries(listing, shape, problems)
    for override in overrides:
        if override.partition("=")[0].strip().partition(".")[0] != "stages":
            shared = overridden(shared, override, shape, environment=variables, problems=problems)
            continue
        id, rest = _of_stage(override, own)
        # Its place is the override as it was typed.
        changed = overridden(own[id], rest, shape, environment=variables, problems=problems)
        own[id] = replace(changed, place=own[id].place)
    shared = shape.expanded(shared)
    stages = _built(path, shared, own, shape, problems)
    if problems:
        raise listed(problems)
    return LoadedChain(path, _folder(shared), tuple(stages))


def _entries(listing: Written, shape: Shape, problems: list[Problem]) -> dict[str, Written]:
    """The stages as written, by id; those without one, and what no stage has, join the problems."""
    if not isinstance(listing.value, list) or not listing.value:
        raise RecipeError("stages is a list of stages in order, each with an id", place=listing.place)
    found: dict[str, Written] = {}
    for item in listing.value:
        if not isinstance(item.value, dict):
            problems.append(Problem(item.place, f"a stage is {item.shown()}, expected a mapping with an id"))
            continue
        id = item.value.get("id")
        if id is None or not isinstance(id.value, str):
            problems.append(
                Problem((id or item).place, "a stage needs an id, a text such as cpt, which names its folder")
            )
            continue
        if id.value in found:
            problems.append(Problem(id.place, f"two stages have the id {id.value}: each needs one of its own"))
            continue
        found[id.value] = shape.expanded(_without_unknown(item, id.value, shape, problems))
    for name, item in found.items():
        number = re.fullmatch(r"(.+)-\d+", name)
        if number and number[1] in found:
            problems.append(
                Problem(
                    item.place,
                    f"the folder {name} is where {number[1]} goes when it is trained anew: choose another id",
                )
            )
    return found


def _without_unknown(item: Written, id: str, shape: Shape, problems: list[Problem]) -> Written:
    assert isinstance(item.value, dict)
    keys = [*(info.alias or key for key, info in Stage.model_fields.items()), *Recipe.model_fields]
    items = dict(item.value)
    for key in [key for key in items if key not in keys]:
        place = items.pop(key).place
        near = nearest(key, keys)
        said = f"Did you mean {near}?" if near else unknown_key((key,), item, shape).partition(". ")[2]
        problems.append(Problem(place, f"stages.{id}.{key} is no key of a stage. {said}"))
    return replace(item, value=items)


def _of_stage(override: str, own: Mapping[str, Written]) -> tuple[str, str]:
    """Which stage an override is for, and the override without that."""
    path = override.partition("=")[0]
    id, _, rest = path.strip().removeprefix("stages").removeprefix(".").partition(".")
    if id not in own:
        raise RecipeError(no_such_stage(id, list(own)), place=override)
    if not rest:
        raise RecipeError("names no value of the stage. Expected stages.ID.path=value", place=override)
    return id, f"{rest}{override[len(path) :]}"


def _built(
    file: str, shared: Written, own: Mapping[str, Written], shape: Shape, problems: list[Problem]
) -> list[LoadedStage]:
    stages: dict[str, LoadedStage | None] = {}
    reaching: set[str] = set()  # stages whose model has the positions of the shared part
    last = [id for id, item in own.items() if item.child("generate") is None][-1:]  # of those that have a model
    answers: dict[str, str] = {}  # files of those that generate, by what later stages call them
    for id, item in own.items():
        settings, sections = _settings(item, problems)
        generates = settings is not None and settings.generate is not None
        before = next((one for one in reversed(stages) if ANSWERS + one not in answers), None)
        start = before if settings is None or settings.from_ is None else settings.from_
        wrong = _wrong_start(settings, sections, list(stages), list(own), answers)
        if wrong is not None:
            problems.append(Problem((item.child("from") or item.child("id") or item).place, wrong))
        names_model = _says(sections, "model", "id")
        starts_from = None if start is None or wrong is not None or names_model else stages[start]
        folder = _folder(shared)
        reaches = start in reaching and not names_model
        if reaches or takes_extension(sections):
            reaching.add(id)
        part = extended_before(shared, sections) if reaches else shared
        if generates:
            problems += not_for_generating(sections, id)
            part = part_for_generating(shared)
        written = _merged(part, sections, is_start=names_model or before is None, is_last=[id] == last)
        written = without_empty_context(written) if reaches else written
        if not _says(sections, "output", "folder"):
            written = with_value(written, "output", "folder", f"{folder}/{id}")
        if not names_model and before is not None:
            # Where the stage before is broken, any place will do: its own problems are told.
            origin = starts_from.loaded.recipe.output.folder if starts_from else folder
            written = with_value(written, "model", "id", origin)
        written = with_sources(written, answers)
        problems += unknown_answers(written, list(stages))
        if generates:
            answers[ANSWERS + id] = answers_file(f"{folder}/{id}")
        recipe, written = checked(written, shape, problems, of=f"stage {id}: ")
        if recipe is None or settings is None:
            stages[id] = None
            continue
        _check_folder(recipe, stages, id, (sections.child("output") or item).place, problems)
        reads = frozenset(sources_among(written, answers.values()))
        stages[id] = LoadedStage(settings, LoadedRecipe(recipe, file, written), starts_from, reads)
        if generates:
            answers[ANSWERS + id] = answers_file(recipe.output.folder)
        _check_merge(stages[id], item, problems)
    return [stage for stage in stages.values() if stage is not None]


def _check_folder(
    recipe: Recipe, stages: Mapping[str, LoadedStage | None], id: str, place: str, problems: list[Problem]
) -> None:
    folder = recipe.output.folder
    known = [one for one in stages.values() if one is not None]
    twin = next((one for one in known if one.loaded.recipe.output.folder == folder), None)
    if twin is not None:
        told = f"stage {id} would go to the folder of stage {twin.id}, {folder}: name another"
        problems.append(Problem(place, told))


def _settings(item: Written, problems: list[Problem]) -> tuple[Stage | None, Written]:
    """What is of the stage itself, and the sections of its recipe."""
    assert isinstance(item.value, dict)
    names = [info.alias or key for key, info in Stage.model_fields.items()]
    about = replace(item, value={key: value for key, value in item.value.items() if key in names})
    sections = replace(item, value={key: value for key, value in item.value.items() if key not in names})
    try:
        return Stage.model_validate(about.data()), sections
    except ValidationError as error:
        problems += explained(error.errors(include_url=False), about, root_shape(Stage))
        return None, sections


def _wrong_start(
    settings: Stage | None,
    sections: Written,
    earlier: Sequence[str],
    all_ids: Sequence[str],
    answers: Collection[str],
) -> str | None:
    if settings is None or settings.from_ is None:
        return None
    id, start = settings.id, settings.from_
    if start == id:
        return f"stage {id} starts from itself. Name an earlier stage, or none for the one before"
    if start in all_ids and start not in earlier:
        return f"stage {id} starts from {start}, which comes later. Move {start} before it"
    if start not in earlier:
        return no_such_stage(start, earlier, earlier=True)
    if ANSWERS + start in answers:
        return f"stage {id} starts from {start}, which generates answers and has no model. Name the stage of its model"
    if _says(sections, "model", "id"):
        return f"stage {id} says where it starts twice: from: {start}, and a model.id. Leave one out"
    return None


def _check_merge(stage: LoadedStage | None, item: Written, problems: list[Problem]) -> None:
    if stage is None or not stage.settings.merge:
        return
    place = (item.child("merge") or item).place
    if stage.generates:
        problems.append(Problem(place, f"stage {stage.id} generates answers with the model as it is: leave merge out"))
        return
    if stage.start is None:
        problems.append(Problem(place, f"stage {stage.id} starts from no earlier stage, whose adapter it could merge"))
    elif stage.start.loaded.recipe.tuning.name == "full":
        problems.append(
            Problem(place, f"stage {stage.id} starts from {stage.start.id}, which is tuned in full: nothing to merge")
        )


def _merged(shared: Written, sections: Written, *, is_start: bool, is_last: bool) -> Written:
    if not is_start:
        # A revision is of the model that the chain begins with.
        shared = _without(shared, "model", ("revision",))
    if not is_last:
        # The result of a chain is its last model, which is what the hub shall receive.
        shared = _without(shared, "output", ("push_to_hub",))
    return merged(shared, sections)


def _without(shared: Written, section: str, keys: Sequence[str]) -> Written:
    assert isinstance(shared.value, dict)
    inner = shared.value.get(section)
    if inner is None or not isinstance(inner.value, dict):
        return shared
    kept = replace(inner, value={key: item for key, item in inner.value.items() if key not in keys})
    return replace(shared, value={**shared.value, section: kept})


def _says(sections: Written, section: str, key: str) -> bool:
    inner = sections.child(section)
    return inner is not None and inner.child(key) is not None


def _folder(shared: Written) -> str:
    """Where the chain goes: the shared part's output, or its default."""
    output = shared.child("output")
    folder = output.child("folder") if output is not None else None
    return folder.value if folder is not None and isinstance(folder.value, str) else Output().folder
