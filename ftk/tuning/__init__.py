"""Which weights move: one file a method. A new method joins the union here."""

from typing import Annotated

from ftk.core.config import ByName
from ftk.tuning.full import Full
from ftk.tuning.lora import Lora

Tuning = Annotated[Full | Lora, ByName(default="lora")]
