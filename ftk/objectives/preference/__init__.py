"""Which loss preferences are learned by: one file a loss. A new one joins the union here."""

from typing import Annotated

from ftk.core.config import ByName
from ftk.objectives.preference.apo_down import ApoDown
from ftk.objectives.preference.apo_zero import ApoZero
from ftk.objectives.preference.cpo import Cpo
from ftk.objectives.preference.dpo import Dpo
from ftk.objectives.preference.dpo_norm import DpoNorm
from ftk.objectives.preference.hinge import Hinge
from ftk.objectives.preference.ipo import Ipo
from ftk.objectives.preference.kto import Kto
from ftk.objectives.preference.orpo import Orpo
from ftk.objectives.preference.robust import Robust
from ftk.objectives.preference.simpo import Simpo

PreferenceLoss = Annotated[
    Dpo | DpoNorm | Robust | Ipo | Hinge | Simpo | Orpo | Cpo | Kto | ApoZero | ApoDown,
    ByName(default="dpo"),
]
