"""Ways to merge models tensor by tensor: one file each, and one name here."""

from typing import Annotated

from ftk.core.config import ByName
from ftk.merging.methods.arcee_fusion import ArceeFusion
from ftk.merging.methods.breadcrumbs import Breadcrumbs
from ftk.merging.methods.breadcrumbs_ties import BreadcrumbsTies
from ftk.merging.methods.dare_linear import DareLinear
from ftk.merging.methods.dare_ties import DareTies
from ftk.merging.methods.della import Della
from ftk.merging.methods.della_linear import DellaLinear
from ftk.merging.methods.karcher import Karcher
from ftk.merging.methods.linear import Linear
from ftk.merging.methods.model_stock import ModelStock
from ftk.merging.methods.multislerp import Multislerp
from ftk.merging.methods.nearswap import Nearswap
from ftk.merging.methods.nuslerp import Nuslerp
from ftk.merging.methods.passthrough import Passthrough
from ftk.merging.methods.sce import Sce
from ftk.merging.methods.slerp import Slerp
from ftk.merging.methods.task_arithmetic import TaskArithmetic
from ftk.merging.methods.ties import Ties

MergeMethod = Annotated[
    Linear
    | Slerp
    | Nuslerp
    | Multislerp
    | Karcher
    | TaskArithmetic
    | Ties
    | DareLinear
    | DareTies
    | Breadcrumbs
    | BreadcrumbsTies
    | Della
    | DellaLinear
    | ModelStock
    | Sce
    | Nearswap
    | ArceeFusion
    | Passthrough,
    ByName(),
]
