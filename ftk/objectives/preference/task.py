"""The task of learning preferences, as a recipe sets it."""

from typing import Annotated, Literal

from pydantic import Field

from ftk.core.config import Section
from ftk.objectives.preference import PreferenceLoss
from ftk.objectives.preference.compared import Rows
from ftk.objectives.preference.dpo import Dpo
from ftk.objectives.preference.objective import PreferenceObjective


class Preference(Section):
    """Learn to prefer: prompts with a better and a worse completion, or with completions judged one by one."""

    name: Literal["preference"] = "preference"
    """`preference`: DPO and its kin."""
    loss: PreferenceLoss = Dpo()
    """How a preference becomes a loss: `dpo`, or another by name, with settings of its own."""
    sft_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the likelihood of chosen completions beside the preference, as in supervised finetuning.

    By default 1 for `orpo` and `cpo`, whose papers have it, else 0. Raise it where chosen completions become less
    probable though the margin grows; 0.1 to 1 is customary."""
    router_loss_weight: Annotated[float, Field(ge=0)] | None = None
    """Weight of the balancing loss of a mixture of experts; 0 leaves it out.

    By default the model's own configuration decides, which for most released models leaves it out."""

    @property
    def rows(self) -> Rows:
        """What the task learns from."""
        return self.loss.rows

    @property
    def needs_reference(self) -> bool:
        """Whether log-probabilities of the model as the training began take part."""
        return self.loss.needs_reference

    def objective(self, *, router_loss_weight: float = 0.0) -> PreferenceObjective:
        """The loss; `router_loss_weight` is what the model's configuration asks for, unless the recipe says it."""
        sft, router = self.sft_weight, self.router_loss_weight
        return PreferenceObjective(
            self.loss,
            sft_weight=self.loss.customary_sft_weight if sft is None else sft,
            router_loss_weight=router_loss_weight if router is None else router,
        )
