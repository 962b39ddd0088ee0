"""Ways to reach beyond the positions that a model with rotary embeddings was trained at, one file each."""

from typing import Annotated

from ftk.core.config import ByName
from ftk.models.rope.dynamic import Dynamic
from ftk.models.rope.linear import Linear
from ftk.models.rope.llama3 import Llama3
from ftk.models.rope.ntk import Ntk
from ftk.models.rope.yarn import Yarn

RopeScaling = Annotated[Linear | Ntk | Dynamic | Yarn | Llama3, ByName(default="yarn")]
