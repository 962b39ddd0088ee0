"""The models that the proof of a fold compares, loaded one after the other."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ftk.core.errors import ModelError, RunError
from ftk.merging.adapters.adapter import Adapter
from ftk.merging.adapters.base_weights import BitsAndBytes
from ftk.merging.adapters.combine import ADDS, Combination
from ftk.models.load import load_model, load_tokenizer
from ftk.models.settings import ModelSettings
from ftk.quantization.int8 import Int8
from ftk.runs.merging.base import Base
from ftk.runs.merging.context import common_context
from ftk.runs.merging.proof import (
    BUILT_IN_TEXT,
    INT8_TOLERANCE,
    MAX_TOKENS,
    TOLERANCES,
    Said,
    Tolerance,
    compare,
    listen,
    require,
)
from ftk.runs.quiet import quieten
from ftk.train.group import best_device


def check(
    merged: Path,
    base: Base,
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    *,
    combination: Combination,
    stays_tied: bool,
    text: str | None,
    trust_remote_code: bool,
    out: Path,
) -> dict[str, Any]:
    """Compare a merged model with its base and the adapters beside it.

    Args:
        merged: its folder.
        base: what the adapters were folded into.
        adapters: those.
        weights: their strengths.
        combination: how several became one; only a weighted sum can be held against the adapters themselves.
        stays_tied: whether a head that is the base's embedding must be the merged model's too.
        text: what both score; None takes a text of ftk's own.
        trust_remote_code: whether Python code that comes with the base may run.
        out: what the folder will be called.

    Returns:
        JSON values: the differences, and whether they were judged.

    Raises:
        ModelError: there is no tokenizer.
        RunError: the proof failed.
    """
    quieten()
    settings = ModelSettings(id=str(merged), trust_remote_code=trust_remote_code)
    token_ids = _token_ids(settings, text, base)
    dtype = _stored_dtype(base)
    in_training = base.was_quantized if base.precision == "dequantized" else None
    reason = _why_not_judged(adapters, weights, combination)

    def beside(quantized: BitsAndBytes | None) -> Callable[[], Any]:
        return lambda: _with_adapters(base, adapters, weights, dtype, quantized, trust_remote_code=trust_remote_code)

    reference = listen(beside(in_training), token_ids) if _can_run(adapters, weights) else None
    said = listen(lambda: load_model(settings, dtype=_computed(dtype), device=best_device()).eval(), token_ids)
    was_tied = bool(base.architecture.tied) or (reference is not None and reference.tied)
    if stays_tied and was_tied and not said.tied:
        raise RunError(f"the head of the merged model is no longer tied to its embedding, so {out} was not written")
    if reference is None:
        _require_finite(said, out)
        return {"judged": False, "why_not": reason, "merged_perplexity": said.perplexity}
    proof = compare(reference, said, tolerance=_tolerance(base, dtype))
    if reason is None:
        require(proof, out=out)
    report: dict[str, Any] = {"judged": reason is None, **proof.as_json()}
    report |= {"why_not": reason} if reason else {}
    if text is not None and base.was_quantized is not None:
        other = listen(beside(None if in_training is not None else base.was_quantized), token_ids)
        report["other_base_precision_perplexity"] = other.perplexity
    return report


def summary(proof: Mapping[str, Any]) -> str:
    """What `check` returned, for a person."""
    if "largest_difference" not in proof:
        return f"proof  not possible: {proof['why_not']}"
    found = (
        f"logits differ by {proof['largest_difference']:.2g} at most and {proof['mean_difference']:.2g} on average, at "
        f"a spread of {proof['spread']:.2g}; {proof['num_other_greedy_tokens']} of {proof['num_tokens']} most probable "
        "tokens are others"
    )
    told = f"proof  {found}" if proof["judged"] else f"proof  not possible ({proof['why_not']}); {found}"
    other = proof.get("other_base_precision_perplexity")
    if other is None:
        return told
    return (
        f"{told}\nperplexity of the text  {proof['merged_perplexity']:.4g} merged, {other:.4g} with the adapters above "
        "the base's other precision (--base-precision)"
    )


def _token_ids(settings: ModelSettings, text: str | None, base: Base) -> list[int]:
    try:
        tokenizer = load_tokenizer(settings)
    except ModelError as error:
        raise ModelError(
            f"neither the base {base.place.name} nor an adapter has a tokenizer that can be read, so that there is no "
            "text to compare models on. Leave the comparison out: --no-verify"
        ) from error
    ids: list[int] = tokenizer(text or BUILT_IN_TEXT)["input_ids"]
    return ids[:MAX_TOKENS]


def _stored_dtype(base: Base) -> torch.dtype:
    dtypes = {spec.dtype for spec in base.weights.specs.values()} & set(TOLERANCES)
    return min(dtypes, key=lambda dtype: (dtype.itemsize, dtype != torch.bfloat16), default=torch.float32)


def _computed(dtype: torch.dtype) -> torch.dtype:
    """What the comparison computes in: on a CPU float32, in which the weights' own rounding is all that is seen."""
    return torch.float32 if best_device().type == "cpu" else dtype


def _tolerance(base: Base, dtype: torch.dtype) -> Tolerance:
    if base.precision == "dequantized" and base.was_quantized is not None and base.was_quantized.name == "int8":
        return INT8_TOLERANCE
    return TOLERANCES[dtype]


def _can_run(adapters: Sequence[Adapter], weights: Sequence[float]) -> bool:
    """Whether PEFT can run the adapters beside the base, at these strengths."""
    return tuple(weights) == (1.0,) or all(adapter.kind == "LORA" and not adapter.replaced for adapter in adapters)


def _why_not_judged(adapters: Sequence[Adapter], weights: Sequence[float], combination: Combination) -> str | None:
    if len(adapters) > 1 and combination.how not in ADDS:
        return f"{combination.how} is not the sum of the adapters, so there is nothing to be equal to"
    if combination.how not in ADDS and tuple(weights) != (1.0,):
        return f"{combination.how} is not the adapter itself"
    if not _can_run(adapters, weights):
        return "these adapters cannot run beside their base together, or at another strength than 1"
    if tuple(weights) != (1.0,) and any(adapter.config.get("use_dora") for adapter in adapters):
        return "DoRA's update is not proportional to its strength"
    return None


def _with_adapters(
    base: Base,
    adapters: Sequence[Adapter],
    weights: Sequence[float],
    dtype: torch.dtype,
    quantized: BitsAndBytes | None,
    *,
    trust_remote_code: bool,
) -> Any:
    from peft import PeftConfig, PeftModel

    settings = ModelSettings(id=base.place.reference, revision=base.place.revision, trust_remote_code=trust_remote_code)
    loading = _loading_config(quantized) if quantized is not None else None
    load_dtype = quantized.dtype if quantized is not None else _computed(dtype)
    model: Any = load_model(
        settings,
        dtype=load_dtype,
        device=best_device(),
        quantization_config=loading,
        context=common_context([adapter.folder for adapter in adapters]),
    )
    num_rows = max((_rows(adapter, model) for adapter in adapters), default=0)
    if num_rows and num_rows != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(num_rows, mean_resizing=False)
    names = [f"adapter_{number}" for number in range(len(adapters))]
    adapted: Any = None
    for name, adapter in zip(names, adapters, strict=True):
        config = PeftConfig.from_pretrained(adapter.folder)
        if adapted is None:
            adapted = PeftModel.from_pretrained(model, adapter.folder, adapter_name=name, config=config)
        else:
            adapted.load_adapter(adapter.folder, adapter_name=name, peft_config=config)
    if tuple(weights) != (1.0,):
        _set_strengths(adapted, dict(zip(names, weights, strict=True)))
    return adapted.eval()


def _rows(adapter: Adapter, model: Any) -> int:
    """Rows of the embedding that the adapter was trained with, or 0 where it brings none that the base has not."""
    if adapter.num_token_rows > model.get_input_embeddings().weight.shape[0]:
        return adapter.num_token_rows
    for name, module in model.named_modules():
        if module is model.get_input_embeddings() and f"{name}.weight" in adapter.replaced:
            return int(adapter.replaced[f"{name}.weight"].shape[0])
    return 0


def _set_strengths(adapted: Any, strengths: dict[str, float]) -> None:
    from peft.tuners.lora import LoraLayer

    adapted.base_model.set_adapter(list(strengths))
    for module in adapted.modules():
        if isinstance(module, LoraLayer):
            for name, strength in strengths.items():
                if name in module.scaling:
                    module.scaling[name] *= strength


def _loading_config(how: BitsAndBytes) -> object:
    if how.name == "int8":
        return Int8().loading_config(how.dtype)
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=how.name,
        bnb_4bit_use_double_quant=how.double,
        bnb_4bit_compute_dtype=how.dtype,
        bnb_4bit_quant_storage=torch.uint8,
    )


def _require_finite(said: Said, out: Path) -> None:
    if not bool(said.logits_LV.isfinite().all()):
        raise RunError(f"the merged model's logits are NaN or infinite, so {out} was not written")
