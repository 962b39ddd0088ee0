"""A model whose positions were extended, for a while as it was before: what the extension is measured against."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ftk.models.dynamic_rope import make_stateless
from ftk.models.rope_proof import rotary_embeddings
from ftk.models.scoring import base_model


@contextmanager
def positions_as_trained(causal_lm: Any, original: Any) -> Iterator[None]:
    """Turn features by the frequencies of the configuration `original` within, and as before afterwards."""
    base: Any = base_model(causal_lm)
    text = original.get_text_config(decoder=True)
    extended = rotary_embeddings(base)
    for name, module in extended.items():
        device = next(module.buffers()).device
        own = type(module)(config=text).to(device)
        make_stateless(own)
        base.set_submodule(name, own)
    try:
        yield
    finally:
        for name, module in extended.items():
            base.set_submodule(name, module)
