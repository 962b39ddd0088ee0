"""How frozen weights are stored: one file a format. A new format joins the union here."""

from typing import Annotated

from ftk.core.config import ByName
from ftk.quantization.int8 import Int8
from ftk.quantization.nf4 import Nf4

Quantization = Annotated[Nf4 | Int8, ByName()]
