"""Models, their configurations and tokenizers from where `locate` finds them."""

from typing import TYPE_CHECKING, Any, cast

import torch

from ftk.core.errors import ModelError, SetupError
from ftk.models.locate import ADAPTER_CONFIG, ModelPlace, locate
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
    """The model's configuration; of an adapter, its base's.

    Raises:
        ModelError: it cannot be read, or the model needs code of its own that the recipe does not trust.
    """
    return _config(locate(settings), settings)


def load_model(
    settings: ModelSettings,
    *,
    dtype: torch.dtype,
    device: torch.device | None = None,
    quantization_config: object | None = None,
) -> "PreTrainedModel | PeftModel":
    """The causal language model with its weights, straight onto the device; for an adapter folder, base and adapter.

    Args:
        settings: which model.
        dtype: of all weights that are not quantized.
        device: where weights go; the CPU by default.
        quantization_config: how transformers shall quantize the weights while it loads them.

    Raises:
        ModelError: the model cannot be used: not a language model, weights that do not fit its configuration, an
            attention kernel that it does not know, code of its own that the recipe does not trust.
        SetupError: a package is missing that the attention kernel or the quantized format needs.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    place = locate(settings)
    config = _config(place, settings)
    device = device or torch.device("cpu")
    options: dict[str, Any] = {} if device.type == "cpu" else {"device_map": {"": device}}
    if quantization_config is not None:
        options["quantization_config"] = quantization_config
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            place.folder,
            config=config,
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
    return model if place.adapter_folder is None else _with_adapter(model, place)


def max_positions(config: Any) -> int | None:
    """The longest row in tokens that the model's positions allow, or None where it sets no bound."""
    positions = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(positions) if positions else None


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
    return cast("PreTrainedConfig", config)


def _with_adapter(model: Any, place: ModelPlace) -> "PeftModel":
    from peft import PeftConfig, PeftModel
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, GenerationConfig

    folder = place.adapter_folder
    try:
        config = PeftConfig.from_pretrained(folder)
        if config.is_prompt_learning:
            raise ModelError(
                f"the adapter in {folder} puts learned tokens before the prompt ({config.peft_type.value}), "
                "which ftk cannot run yet"
            )
        if (folder / TOKENIZER_CONFIG).exists():  # type: ignore[operator]
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
    if (folder / "generation_config.json").exists():  # type: ignore[operator]
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
