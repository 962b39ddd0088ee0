"""The model card that goes with a tuned model."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ftk.runs.summary import figure

_CONTEXT_OF_ADAPTER = (
    ". Programs other than ftk must give the base the keys of `context.json` before the adapter, as in "
    '`AutoConfig.from_pretrained(base, **json.load(open("context.json")))`'
)


def model_card(
    *,
    name: str,
    base: str,
    licence: str | None,
    is_adapter: bool,
    data: Sequence[str],
    template_arguments: Mapping[str, Any],
    recipe_yaml: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    versions: Mapping[str, str],
    positions: str | None = None,
) -> str:
    """Markdown with the header that hubs read: base and its licence, data, recipe, figures.

    Args:
        name: what the model is called.
        base: hub id or folder of the model that was tuned.
        licence: the base's licence, None where it does not say.
        is_adapter: whether the weights are an adapter beside the base.
        data: sources of the training rows.
        template_arguments: what the chat template was given beside the messages.
        recipe_yaml: the resolved recipe.
        before: figures of the base by metric.
        after: figures of the tuned model by metric.
        versions: of the libraries that trained it.
        positions: how much further it reads than its base; None where it does not.
    """
    header = ["---", f"base_model: {base}", "library_name: " + ("peft" if is_adapter else "transformers")]
    header += [f"license: {licence}"] if licence else []
    header += ["tags:", "- ftk", "---"]
    kind = "an adapter for" if is_adapter else "a finetuned version of"
    figures = [
        f"| {metric} | {figure(metric, before.get(metric))} | {figure(metric, value)} |"
        for metric, value in after.items()
    ]
    return "\n".join(
        [
            *header,
            "",
            f"# {name}",
            "",
            f"This is {kind} `{base}`, made with ftk.",
            "",
            f"- Licence of the base: {licence or 'not stated by the base; look it up before you share this model'}",
            *(f"- Trained on: {source}" for source in data),
            *(
                [f"- The chat template was given {json.dumps(dict(template_arguments))}; give it the same when you ask"]
                if template_arguments
                else []
            ),
            *([f"- Context: {positions}{_CONTEXT_OF_ADAPTER if is_adapter else ''}"] if positions else []),
            "",
            "## Figures",
            "",
            *(["| metric | before | after |", "| --- | --- | --- |", *figures] if figures else ["Not evaluated."]),
            "",
            "## Recipe",
            "",
            "```yaml",
            recipe_yaml.rstrip(),
            "```",
            "",
            "Versions: " + ", ".join(f"{package} {version}" for package, version in versions.items()),
            "",
        ]
    )
