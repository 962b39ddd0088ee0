"""A trained model as a folder that transformers and PEFT load, whole or not at all."""

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ftk.core.atomic import atomic_folder
from ftk.core.types import TEMPLATE_ARGUMENTS
from ftk.models.extend import CONTEXT_FILE, with_context
from ftk.models.locate import CONFIG
from ftk.models.scoring import base_model


def save_model(
    causal_lm: nn.Module,
    tokenizer: Any,
    folder: Path,
    *,
    end_token_ids: Sequence[int],
    card: str,
    chat_template: str | None,
    template_arguments: Mapping[str, Any] | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
    context: Mapping[str, Any] | None = None,
) -> None:
    """Write weights, configuration, tokenizer, chat template, generation settings and model card.

    Args:
        causal_lm: a transformers model, or one with PEFT adapters, of which the adapter alone is written.
        tokenizer: the one that rendered the training rows.
        folder: takes its place only when it is complete; what was there before goes.
        end_token_ids: tokens that ended the answers in training, at which generation shall stop.
        card: text of README.md.
        chat_template: the template that rendered the training rows, kept byte for byte; None keeps the tokenizer's.
        template_arguments: what the template was given beside the messages; kept in tokenizer_config.json, under
            `chat_template_arguments`, for whoever renders with it next.
        state_dict: whole weights by the names of `causal_lm`, where its own are shards.
        context: keys of config.json that tell the positions of an extended model. An adapter's folder has no
            config.json: they lie beside it then, as `context.json`.
    """
    model: Any = causal_lm
    base: Any = base_model(causal_lm)
    options: dict[str, Any] = {}
    if state_dict is not None:
        # Gathered one by one, tied weights are copies that cannot be told from weights of their own.
        options["state_dict"] = {
            name: tensor for name, tensor in state_dict.items() if name not in base.all_tied_weights_keys
        }
    with atomic_folder(folder) as unfinished:
        if causal_lm is not base:
            _record_revision(causal_lm, base.config)
            # The base is not written, so whether its embeddings had to be need not be asked of the hub.
            model.save_pretrained(unfinished, save_embedding_layers=False, **options)
            if context is not None:
                _write_json(unfinished / CONTEXT_FILE, context)
        else:
            model.save_pretrained(unfinished, **options)
            if context is not None:
                config = json.loads((unfinished / CONFIG).read_text(encoding="utf-8"))
                _write_json(unfinished / CONFIG, with_context(config, context))
        _with_template(tokenizer, chat_template, template_arguments or {}).save_pretrained(unfinished)
        generation = generation_settings(base, end_token_ids, pad_token_id=tokenizer.pad_token_id)
        _write_json(unfinished / "generation_config.json", generation)
        (unfinished / "README.md").write_text(card, encoding="utf-8")


def generation_settings(base: Any, end_token_ids: Sequence[int], *, pad_token_id: int | None) -> dict[str, Any]:
    """The base's generation settings, stopping at the trained end tokens first, and at those it stopped at before."""
    settings: dict[str, Any] = base.generation_config.to_diff_dict()
    before = settings.get("eos_token_id")
    ends = [*end_token_ids, *(before if isinstance(before, list) else [] if before is None else [before])]
    if ends:
        settings["eos_token_id"] = list(dict.fromkeys(ends))
    if settings.get("pad_token_id") is None and pad_token_id is not None:
        settings["pad_token_id"] = pad_token_id
    return settings


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _with_template(tokenizer: Any, chat_template: str | None, arguments: Mapping[str, Any]) -> Any:
    if chat_template is None:
        return tokenizer
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = chat_template
    tokenizer.init_kwargs.pop(TEMPLATE_ARGUMENTS, None)
    if arguments:
        tokenizer.init_kwargs[TEMPLATE_ARGUMENTS] = dict(arguments)
    return tokenizer


def _record_revision(model: Any, config: Any) -> None:
    for adapter in model.peft_config.values():
        adapter.revision = adapter.revision or getattr(config, "_commit_hash", None)
