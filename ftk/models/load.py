"""Models, their configurations and tokenizers from where `locate` finds them."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from ftk.core.errors import ModelError, SetupError
from ftk.core.positions import max_positions as max_positions
from ftk.core.positions import rope_parts
from ftk.models.dynamic_rope import make_stateless
from ftk.models.extend import apply_saved_context, extend_config, saved_context
from ftk.models.locate import ADAPTER_CONFIG, ModelPlace, locate
from ftk.models.position_table import stretch_position_table
from ftk.models.rope_proof import require_extended
from ftk.models.settings import ModelSettings
from ftk.models.vocabulary import grow_vocabulary

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

TOKENIZER_CONFIG = "tokenizer_config.json"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, AttributeError)
"""What transformers raises at files that it cannot make sense of."""


def load_tokenizer(settings: ModelSettings) -> "PreTrainedTokenizerBase":
    """The tokenizer that goes with the model, or with the adapter where that brings its own.

    Raises:
        ModelError: there is none, or it cannot be read.
    """
    from transformers import AutoTokenizer

    folder = locate(settings).tokenizer_folder
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    except UNREADABLE as error:
        # transformers picks the tokenizer by config.json, so the fault may lie there.
        load_config(settings)
        raise ModelError(
            f"{folder} has no tokenizer that can be read ({_first_line(error)}). Expected tokenizer.json and "
            "tokenizer_config.json, as the model's authors publish them"
        ) from error
    return cast("PreTrainedTokenizerBase", tokenizer)


def load_config(settings: ModelSettings) -> "PreTrainedConfig":
    """The model's configuration, extended as the recipe says; of an adapter, its base's with the adapter's positions.

    Raises:
        ModelError: it cannot be read or extended, or the model needs code of its own that the recipe does not trust.
        RecipeError: the model reads as far as it shall already, or a factor does not reach so far.
    """
    place = locate(settings)
    return _extended(_config(place, settings), settings, place)


def load_model(
    settings: ModelSettings,
    *,
    dtype: torch.dtype,
    device: torch.device | None = None,
    quantization_config: object | None = None,
    context: Mapping[str, Any] | None = None,
) -> "PreTrainedModel | PeftModel":
    """The causal language model with its weights, straight onto the device; for an adapter folder, base and adapter.

    Args:
        settings: which model.
        dtype: of all weights that are not quantized.
        device: where weights go; the CPU by default.
        quantization_config: how transformers shall quantize the weights while it loads them.
        context: positions that were saved with an adapter which the caller will put onto the model.

    Raises:
        ModelError: the model cannot be used: not a language model, weights that do not fit its configuration, an
            attention kernel that it does not know, code of its own that the recipe does not trust, positions that
            cannot be extended as the recipe says.
        SetupError: a package is missing that the attention kernel or the quantized format needs.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    place = locate(settings)
    config = _config(place, settings)
    if context is not None:
        apply_saved_context(config, context)
    has_learned_positions = not rope_parts(config.get_text_config(decoder=True))
    original, config = config, _extended(config, settings, place)
    device = device or torch.device("cpu")
    options: dict[str, Any] = {} if device.type == "cpu" else {"device_map": {"": device}}
    if quantization_config is not None:
        options["quantization_config"] = quantization_config
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            place.folder,
            # A table of learned positions is stretched once its weights are there.
            config=original if has_learned_positions else config,
            dtype=dtype,
            attn_implementation=_attention(settings, config, dtype=dtype, device=device),
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            **options,
        )
    except ImportError as error:
        raise SetupError(f"{place.name} cannot be loaded: {_first_line(error)}") from error
    except torch.OutOfMemoryError:
        raise
    except (*UNREADABLE, RuntimeError) as error:
        raise ModelError(f"{place.name} cannot be loaded as a causal language model: {_first_line(error)}") from error
    except SafetensorError as error:
        raise _broken_weights(place.folder, error) from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise ModelError(
            f"the weights in {place.folder} lack {len(missing)} tensors that its config.json needs, such as "
            f"{missing[0]}. They would start at random: the folder is incomplete, or its config.json is another's"
        )
    model.name_or_path = model.config._name_or_path = place.reference
    model.config._commit_hash = place.revision
    _reach_further(model, original, settings, place)
    return model if place.adapter_folder is None else _with_adapter(model, place.adapter_folder, place)


def _extended(config: Any, settings: ModelSettings, place: ModelPlace) -> Any:
    """A copy with more positions where the recipe asks for them."""
    if settings.context is None or not settings.context.extends:
        return config
    extended = copy.deepcopy(config)
    extend_config(extended, settings.context, name=place.name)
    return extended


def _reach_further(model: Any, original: Any, settings: ModelSettings, place: ModelPlace) -> None:
    """What loading with an extended configuration leaves to be done, and the proof that it had its effect."""
    context = settings.context
    parts = rope_parts(model.config.get_text_config(decoder=True))
    before = max_positions(original)
    if context is not None and parts and before != max_positions(model.config):
        require_extended(model, original, context, name=place.name)
    elif context is not None and context.length is not None and not parts:
        stretch_position_table(model, before=cast(int, before), after=context.length, name=place.name)
    if any(part.get("rope_type") == "dynamic" for part in parts.values()):
        make_stateless(model)


def _config(place: ModelPlace, settings: ModelSettings) -> "PreTrainedConfig":
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(place.folder, trust_remote_code=settings.trust_remote_code)
    except UNREADABLE as error:
        if "trust_remote_code" in str(error):
            raise ModelError(
                f"{place.name} brings Python code of its own, which would run on this machine. Read the *.py files "
                "that come with it; where you trust them, set model.trust_remote_code to true"
            ) from error
        raise ModelError(f"config.json in {place.folder} cannot be used: {_first_line(error)}") from error
    saved = saved_context(place.adapter_folder) if place.adapter_folder is not None else None
    if saved is not None:
        apply_saved_context(config, saved)
    return cast("PreTrainedConfig", config)


def _with_adapter(model: Any, folder: Path, place: ModelPlace) -> "PeftModel":
    from peft import PeftConfig, PeftModel
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, GenerationConfig

    try:
        config = PeftConfig.from_pretrained(folder)
        if config.is_prompt_learning:
            raise ModelError(
                f"the adapter in {folder} puts learned tokens before the prompt ({config.peft_type.value}), "
                "which ftk cannot run yet"
            )
        if (folder / TOKENIZER_CONFIG).exists():
            # Of tokens that were added the adapter has the rows, which must find a place.
            grow_vocabulary(model, len(AutoTokenizer.from_pretrained(folder)))
        adapted = PeftModel.from_pretrained(model, folder, config=config)
    except (*UNREADABLE, RuntimeError) as error:
        raise ModelError(
            f"the adapter in {folder} does not fit its base {place.reference}: {_first_line(error)}. "
            f"The base is named in {ADAPTER_CONFIG}"
        ) from error
    except SafetensorError as error:
        raise _broken_weights(folder, error) from error
    if (folder / "generation_config.json").exists():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    return cast("PeftModel", adapted)


def _attention(settings: ModelSettings, config: Any, *, dtype: torch.dtype, device: torch.device) -> str | None:
    """What transformers is asked for; None leaves the choice to it, which is SDPA where the model has it."""
    if settings.attention != "auto":
        return settings.attention
    # Flash attention computes in half precision alone, and quietly needs weights that are stored so.
    if device.type != "cuda" or dtype == torch.float32:
        return None
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
    from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available

    architecture = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if not getattr(architecture, "_supports_flash_attn", False):
        return None
    if is_flash_attn_3_available():
        return "flash_attention_3"
    return "flash_attention_2" if is_flash_attn_2_available() else None


def _broken_weights(folder: object, error: BaseException) -> ModelError:
    return ModelError(
        f"the weights in {folder} cannot be read ({_first_line(error)}): a *.safetensors file is broken, or was not "
        "copied or downloaded to its end. Get it again"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__
