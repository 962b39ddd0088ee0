"""What is learned: one file a loss. A new task joins the union here."""

from typing import Annotated

from ftk.core.config import ByName
from ftk.objectives.cpt import Cpt
from ftk.objectives.infill import Infill
from ftk.objectives.preference.task import Preference
from ftk.objectives.sft import Sft

Task = Annotated[Sft | Cpt | Infill | Preference, ByName(default="sft")]
