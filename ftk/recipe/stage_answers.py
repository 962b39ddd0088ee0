"""`generate:` of a stage: its model answers questions, and later stages learn from what it wrote."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Annotated

from pydantic import Field

from ftk.core.config import Section
from ftk.recipe.shapes import nearest
from ftk.recipe.written import Problem, Written

ANSWERS = "ftk://stages/"
"""Before the id of an earlier stage: the source of its answers."""
TAKES: Mapping[str, Collection[str]] = {
    "model": ("id", "revision", "dtype", "attention", "trust_remote_code"),
    "data": ("train", "chat_template", "template_arguments"),
    "quantization": (),
    "output": ("folder",),
    "seed": (),
}
"""Sections that a stage which generates has, and what of them; of those without keys all."""


class Generate(Section):
    """How a stage's model answers the questions of `data.train`, in place of training."""

    max_new_tokens: Annotated[int, Field(ge=1)] = 512
    """Most tokens of an answer. One that has not ended by then is left out: it would not teach to stop."""
    temperature: Annotated[float, Field(ge=0, lt=100)] = 0.0
    """0 takes the most probable token each time, 1 draws from the model's own distribution."""
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the fewest tokens that together have this probability."""


def answers_file(folder: str) -> str:
    """The file of answers in a stage's folder."""
    return f"{folder}/answers.jsonl"


def not_for_generating(sections: Written, id: str) -> list[Problem]:
    """What a stage says of training that only generates."""
    assert isinstance(sections.value, dict)
    wrong: dict[str, Written] = {}
    for section, inner in sections.value.items():
        if section not in TAKES:
            wrong[section] = inner
        elif TAKES[section] and isinstance(inner.value, dict):
            wrong |= {f"{section}.{key}": item for key, item in inner.value.items() if key not in TAKES[section]}
    return [
        Problem(item.place, f"{path} is for training, and stage {id} generates answers: leave it out")
        for path, item in wrong.items()
    ]


def part_for_generating(shared: Written) -> Written:
    """Of the shared part what concerns a stage that generates."""
    assert isinstance(shared.value, dict)
    kept = {section: _only(shared.value[section], keys) for section, keys in TAKES.items() if section in shared.value}
    named = {
        section: Written({"name": Written(name, shared.place, text=name)}, shared.place) for section, name in _IDLE
    }
    return replace(shared, value={**kept, **named})


_IDLE = (("task", "sft"), ("tuning", "lora"))
"""What a recipe has and generating does not look at; under LoRA any quantization may be."""


def with_sources(written: Written, files: Mapping[str, str]) -> Written:
    """The recipe with other files in place of some of its sources, by what they are called now."""
    data = written.child("data")
    if data is None or not isinstance(written.value, dict):
        return written

    def put(item: Written) -> Written:
        if isinstance(item.value, dict):
            return replace(item, value={key: put(inner) for key, inner in item.value.items()})
        if isinstance(item.value, list):
            return replace(item, value=[put(inner) for inner in item.value])
        file = files.get(item.value) if isinstance(item.value, str) else None
        return item if file is None else replace(item, value=file, text=file, source=None)

    return replace(written, value={**written.value, "data": put(data)})


def sources_among(written: Written, names: Collection[str]) -> set[str]:
    """Which of these names the recipe has as sources."""
    data = written.child("data")
    return {name for _, item in (data.walk() if data is not None else ()) for name in names if item.value == name}


def unknown_answers(written: Written, earlier: Sequence[str]) -> list[Problem]:
    """Sources `ftk://stages/ID` that are still there once those of earlier stages are files."""
    data = written.child("data")
    problems = []
    for _, item in data.walk() if data is not None else ():
        if isinstance(item.value, str) and item.value.startswith(ANSWERS):
            id = item.value.removeprefix(ANSWERS)
            why = f"stage {id} has no generate" if id in earlier else no_such_stage(id, earlier, earlier=True)
            problems.append(Problem(item.place, f"{item.value} has no answers: {why}"))
    return problems


def no_such_stage(id: str, ids: Sequence[str], *, earlier: bool = False) -> str:
    """That there is no stage of this id among these, and which was probably meant."""
    near = nearest(id, ids)
    hint = f" Did you mean {near}?" if near else ""
    return f"there is no {'earlier ' if earlier else ''}stage {id}.{hint} There are: {', '.join(ids) or 'none'}"


def _only(section: Written, keys: Collection[str]) -> Written:
    if not keys or not isinstance(section.value, dict):
        return section
    return replace(section, value={key: item for key, item in section.value.items() if key in keys})
