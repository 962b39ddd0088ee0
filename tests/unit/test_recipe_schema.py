"""What is generated from the schema, what ships, and how sections and unions read."""

import importlib.util
import json
from pathlib import Path
from typing import Annotated, Literal

import pytest
import yaml
from pydantic import ValidationError

from ftk.core.config import ByName, OneOrMore, Section
from ftk.core.interval import Interval
from ftk.merging.methods import NAMES, method_named
from ftk.recipe.json_schema import recipe_schema
from ftk.recipe.load import load_recipe
from ftk.recipe.load_stages import load_stages
from ftk.recipe.merge_file import KEYS
from ftk.recipe.merge_reference import merge_page
from ftk.recipe.moe_file import EXPERT_KEYS
from ftk.recipe.moe_file import KEYS as MIXTURE_KEYS
from ftk.recipe.reference import reference_page
from ftk.recipe.schema import Recipe
from ftk.recipe.shapes import fields, nearest
from ftk.recipe.shipped import SCHEMA_FILE, shipped_folder, shipped_recipes
from ftk.recipe.stages import LoadedChain
from ftk.runs.recipes import copy_recipe

REPOSITORY = Path(__file__).parents[2]


def test_generated_files_are_up_to_date():
    """`python scripts/build_reference.py` writes them."""
    assert (REPOSITORY / "recipes" / "REFERENCE.md").read_text() == reference_page()
    assert (REPOSITORY / "recipes" / "MERGE.md").read_text() == merge_page()
    assert json.loads((REPOSITORY / "recipes" / SCHEMA_FILE).read_text()) == recipe_schema()


def test_build_script_writes_what_is_there(tmp_path):
    spec = importlib.util.spec_from_file_location("build_reference", REPOSITORY / "scripts" / "build_reference.py")
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.FOLDER = tmp_path
    script.main()
    for name in ("REFERENCE.md", "MERGE.md", SCHEMA_FILE):
        assert (tmp_path / name).read_bytes() == (REPOSITORY / "recipes" / name).read_bytes()


def test_every_field_is_documented_and_on_the_page():
    page = reference_page()
    for path, info, _ in fields(Recipe):
        assert info.description, f"{path} has no docstring"
        is_name_of_member = path.endswith(".name")
        # Sections that stand in two places are shown once.
        shown = path.replace("data.eval.", "data.train.")
        assert is_name_of_member or f"`{shown}`" in page or f"# {shown}" in page, path


def test_every_key_of_a_merge_is_on_its_page():
    page = merge_page()
    for key in (*KEYS, *MIXTURE_KEYS, *EXPERT_KEYS, *NAMES):
        assert f"`{key}`" in page, key
    for name in NAMES:
        method = method_named(name)
        for info in method.model_fields.values():
            assert info.description, f"{name} has a setting without a docstring"


def test_schema_takes_words_lists_and_extends():
    schema = recipe_schema()
    properties, definitions = schema["properties"], schema["$defs"]
    assert {"extends", "stages", *Recipe.model_fields} == set(properties)
    assert {"type": "string", "enum": ["full", "lora"]} in properties["tuning"]["anyOf"]
    assert {"type": "null"} in properties["quantization"]["anyOf"]
    assert "A hub id" in definitions["ModelSettings"]["anyOf"][0]["description"]
    metrics = definitions["EvaluationSettings"]["properties"]["metrics"]["anyOf"]
    assert metrics[1] == {"type": "array", "items": metrics[0]}
    assert any("pattern" in choice for choice in metrics[0]["anyOf"])
    words = [choice["enum"] for choice in metrics[0]["anyOf"] if "enum" in choice]
    assert "exact_match" in words[0]
    assert schema["anyOf"] == [{"required": [*key]} for key in (("model", "data"), ("extends",), ("stages",))]


@pytest.mark.parametrize("recipe", shipped_recipes(), ids=lambda recipe: recipe.name)
def test_shipped_recipe_is_valid_and_says_what_it_needs(recipe):
    text = recipe.path.read_text()
    assert text.splitlines()[0] == f"# yaml-language-server: $schema={SCHEMA_FILE}"
    loaded = load_stages(str(recipe.path), environment={})
    recipes = [stage.loaded for stage in loaded.stages] if isinstance(loaded, LoadedChain) else [loaded]
    # A copied file stands alone, or brings along what it extends.
    assert yaml.safe_load(text).get("extends") in (None, "preference_dpo.yaml")
    assert all(one.recipe.data.eval for one in recipes)
    assert "GPU" in text.split("\nmodel:")[0]
    assert recipe.line.endswith(".")


def test_the_recipes_of_the_main_job_ship():
    assert shipped_folder() == REPOSITORY / "recipes"
    names = {recipe.name for recipe in shipped_recipes()}
    assert names >= {"quickstart", "sft_lora", "sft_qlora", "sft_full", "sft_gsm8k"}


def test_what_a_recipe_extends_is_copied_with_it(tmp_path):
    copied = copy_recipe("preference_kto", tmp_path, force=False)
    assert {path.name for path in copied} == {"preference_kto.yaml", "preference_dpo.yaml", SCHEMA_FILE}
    assert load_recipe(str(tmp_path / "preference_kto.yaml")).recipe.task.loss.name == "kto"
    gsm8k = load_recipe(str(shipped_folder() / "sft_gsm8k.yaml")).recipe
    source = gsm8k.data.train[0]
    assert (source.source, source.subset) == ("openai/gsm8k", "main")
    assert source.columns == {"question": "question", "answer": "answer"}


class _Circle(Section):
    name: Literal["circle"] = "circle"
    radius: float = 1.0


class _Square(Section):
    name: Literal["square"] = "square"
    side: float = 1.0


class _Own(Section):
    name: str


class _Drawing(Section):
    form: Annotated[_Circle | _Square | _Own, ByName(default="circle")] = _Circle()
    frame: Annotated[_Circle | _Square, ByName()] | None = None
    only: Annotated[_Circle, ByName()] = _Circle()
    forms: Annotated[tuple[Annotated[_Circle | _Square, ByName()], ...], OneOrMore()] = ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("square", _Square()),
        ({"name": "square", "side": 2}, _Square(side=2)),
        ({"radius": 3}, _Circle(radius=3)),
        ("mine:form", _Own(name="mine:form")),
        (_Square(side=4), _Square(side=4)),
    ],
)
def test_union_picks_by_name(value, expected):
    assert _Drawing.model_validate({"form": value}).form == expected


def test_one_may_stand_for_a_list_and_null_for_none():
    assert _Drawing.model_validate({"forms": "square"}).forms == (_Square(),)
    assert _Drawing.model_validate({"forms": ["circle", {"name": "square"}]}).forms == (_Circle(), _Square())
    assert _Drawing.model_validate({"forms": None}).forms == ()


@pytest.mark.parametrize("drawing", [{"form": "oval"}, {"frame": {"side": 1}}, {"only": 3}, {"form": {"name": 3}}])
def test_union_refuses_what_it_does_not_know(drawing):
    with pytest.raises(ValidationError):
        _Drawing.model_validate(drawing)


def test_union_of_a_section_without_a_literal_name_of_its_own_is_a_mistake_in_code():
    class Nameless(Section):
        size: int = 1

    with pytest.raises(KeyError):

        class _Broken(Section):
            form: Annotated[Nameless, ByName()] = Nameless()


@pytest.mark.parametrize(
    ("value", "steps"), [(200, 200), ("200 steps", 200), ("1 epoch", 50), ("0.5 epochs", 25), (" 2 epochs ", 100)]
)
def test_interval_in_steps(value, steps):
    interval = Interval.model_validate(value)
    assert interval.in_steps(50) == steps
    assert [step for step in range(1, 301) if interval.is_due(step, 50)] == list(range(steps, 301, steps))
    assert Interval.model_validate(interval.model_dump()) == interval


@pytest.mark.parametrize("value", [0, -1, True, "often", "0 epochs", "1.5 steps", 2.5, [1], "epoch"])
def test_interval_refuses(value):
    with pytest.raises(ValidationError):
        Interval.model_validate(value)


def test_interval_of_epochs_needs_a_length():
    with pytest.raises(ValueError, match="epochs cannot be counted"):
        Interval(epochs=1).in_steps(None)


def test_nearest():
    assert nearest("Learning-Rate", ["learning_rate", "epochs"]) == "learning_rate"
    assert nearest("zzz", ["learning_rate"]) is None
