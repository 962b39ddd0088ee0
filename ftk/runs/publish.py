"""Writing the tuned model: weights, tokenizer, template, generation settings and card, and where asked to the hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from ftk.core.errors import RecipeError, RunError, SetupError
from ftk.models.save import save_model
from ftk.recipe.load import LoadedRecipe
from ftk.runs.card import model_card
from ftk.runs.environment import packages
from ftk.runs.training_data import TrainingData
from ftk.runs.tuned_model import TunedModel
from ftk.train.shard import full_state_dict, is_sharded, unwrapped
from ftk.tuning.full import Full

if TYPE_CHECKING:
    from accelerate import Accelerator


class Publisher:
    """Writes the model as it is at the moment, from all processes."""

    def __init__(
        self,
        loaded: LoadedRecipe,
        data: TrainingData,
        tuned: TunedModel,
        model: nn.Module,
        accelerator: "Accelerator",
    ) -> None:
        """`model` is what `spread` returned."""
        self._loaded = loaded
        self._data = data
        self._tuned = tuned
        self._model = model
        self._accelerator = accelerator

    def write(
        self, folder: Path, before: Mapping[str, float] | None = None, after: Mapping[str, float] | None = None
    ) -> None:
        """Write a model folder that appears complete or not at all; every process must call this."""
        state_dict = None
        if is_sharded(self._model):
            # Names as the causal model knows them, without the wrapper that scores tokens.
            state_dict = full_state_dict(unwrapped(self._model).get_submodule("causal_lm"), self._accelerator)
        if self._accelerator.is_main_process:
            save_model(
                self._tuned.causal_lm,
                self._data.tokenizer,
                folder,
                end_token_ids=self._data.end_token_ids,
                card=self._card(before or {}, after or {}),
                chat_template=self._data.chat_template,
                template_arguments=self._data.template_arguments,
                state_dict=state_dict,
                context=self._tuned.context,
            )
        self._accelerator.wait_for_everyone()

    def _card(self, before: Mapping[str, float], after: Mapping[str, float]) -> str:
        recipe = self._loaded.recipe
        return model_card(
            name=Path(recipe.output.folder).name,
            base=self._tuned.place.name,
            licence=self._tuned.place.licence,
            is_adapter=not isinstance(recipe.tuning, Full),
            data=[source.source for source in recipe.data.train],
            template_arguments=self._data.template_arguments,
            recipe_yaml=self._loaded.as_yaml(),
            before=before,
            after=after,
            versions=packages(),
            positions=self._tuned.context_note,
        )


def check_push(repository: str) -> None:
    """Find out before hours of training what would keep the hub from taking the model.

    Raises:
        RecipeError: the hub knows no such names.
        SetupError: there is no token for the hub.
    """
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise RecipeError(
            f"{repository} is no name of a hub repository, expected one such as me/my-model: {error}",
            place="output.push_to_hub",
        ) from error
    if get_token() is None:
        raise SetupError("output.push_to_hub needs a token: set HF_TOKEN, or log in with `hf auth login`")


def push_to_hub(folder: Path, repository: str) -> str:
    """Upload a model folder; the address of what was uploaded.

    Raises:
        RunError: the hub refused, or cannot be reached.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi()
    try:
        api.create_repo(repository, exist_ok=True, private=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))
    except (HfHubHTTPError, OSError) as error:
        raise RunError(
            f"the hub did not take {repository}: {error}. The model is saved; the same command tries again",
            place=str(folder),
        ) from error
