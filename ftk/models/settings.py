"""The `model` section of a recipe."""

from typing import Literal

from ftk.core.config import Section
from ftk.models.context import ContextSettings


class ModelSettings(Section):
    """The model that is tuned."""

    id: str
    """A hub id, a local folder, an ftk run folder, or `ftk://tiny`, which ships with ftk."""
    revision: str | None = None
    """Branch, tag or commit of a hub id. Name a commit to make a run repeatable."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """How frozen weights are stored. `auto` follows `training.precision`; weights that are trained stay float32."""
    attention: Literal["auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] = "auto"
    """The attention kernel. `auto` takes the fastest that is installed and knows the model."""
    trust_remote_code: bool = False
    """Whether Python code that comes with the model may run on this machine. Read that code first."""
    context: ContextSettings | None = None
    """How far the model shall read, where that is further than it was trained to; null leaves it as it is."""
