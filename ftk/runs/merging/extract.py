"""`ftk extract`: a LoRA out of a base and a model that was tuned from it."""

import time
from pathlib import Path
from typing import Any

from ftk.core.atomic import atomic_folder, remove_leftovers
from ftk.core.errors import ModelError, RecipeError, RunError
from ftk.core.weight_files import weight_files
from ftk.merging.adapters.base_weights import is_stored_in_few_bits
from ftk.merging.adapters.extract import Extracted, extract
from ftk.merging.stream import Checkpoint
from ftk.models.locate import ModelPlace, locate
from ftk.models.settings import ModelSettings
from ftk.runs.merging.adapter_folder import write_adapter
from ftk.runs.merging.architecture import architecture_of
from ftk.runs.merging.card import extracted_card
from ftk.runs.merging.companions import copy_companions
from ftk.runs.merging.configuration import read_config
from ftk.runs.merging.hashes import Hashes
from ftk.runs.merging.output import local_folders, require_free, require_space


def extract_adapter(
    base: str,
    tuned: str,
    *,
    out: Path,
    rank: int | None = None,
    energy: float | None = None,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Take a LoRA out of two whole models, and write it as PEFT does.

    Args:
        base: folder, run, `ftk://` name or hub id of the model before.
        tuned: of the model after.
        out: folder to write, which appears complete or not at all.
        rank: of every adapted matrix.
        energy: instead, the share of each difference's sum of squares to hold, above 0 and at most 1.
        trust_remote_code: whether Python code that comes with the models may run.

    Raises:
        RecipeError: neither or both of rank and energy are given, one is out of range, or `out` cannot be used.
        ModelError: a model is not to be had, or the two do not go together.
    """
    start = time.perf_counter()
    if (rank is None) == (energy is None):
        raise RecipeError("say how much the adapter shall hold: either --rank or --energy", place="--rank")
    if rank is not None and rank < 1:
        raise RecipeError(f"{rank} is no rank: expected 1 or more", place="--rank")
    if energy is not None and not 0 < energy <= 1:
        raise RecipeError(f"{energy} is no share: expected above 0 and at most 1, such as 0.9", place="--energy")
    require_free(out, local_folders({f"the model {name}": name for name in (base, tuned)}))
    places = [_whole_model(name, trust_remote_code=trust_remote_code) for name in (base, tuned)]
    require_free(out, {f"the model {place.name}": place.folder for place in places})
    with Hashes() as hashes:
        for place in places:
            hashes.start(weight_files(place.folder))
        found = _extracted(places, ModelSettings(id=base, trust_remote_code=trust_remote_code), rank, energy)
        num_bytes = sum(tensor.nbytes for tensor in found.tensors.values())
        require_space(out, num_bytes)
        remove_leftovers(out.parent, out.name)
        try:
            with atomic_folder(out) as unfinished:
                write_adapter(unfinished, {**found.config, "revision": places[0].revision}, found.tensors)
                copy_companions(places[1].folder, unfinished, tokenizer=places[1].folder, generation=places[1].folder)
                files = {place.name: hashes.of(weight_files(place.folder)) for place in places}
                card = extracted_card(out.name, places[0], places[1], files)
                (unfinished / "README.md").write_text(card, encoding="utf-8")
        except OSError as error:
            raise RunError(f"{out} cannot be written: {error.strerror or error}. Nothing is left of it") from error
    return {
        "output": str(out),
        "base": places[0].name,
        "tuned": places[1].name,
        "num_modules": len(found.ranks),
        "smallest_rank": min(found.ranks.values()),
        "largest_rank": max(found.ranks.values()),
        "energy": found.energy,
        "whole_modules": list(found.whole),
        "output_bytes": num_bytes,
        "seconds": round(time.perf_counter() - start, 3),
    }


def _extracted(places: list[ModelPlace], base: ModelSettings, rank: int | None, energy: float | None) -> Extracted:
    before, after = (Checkpoint(place.folder) for place in places)
    shapes = {name: place.shape for name, place in before.tensors.items()}
    return extract(
        before, after, architecture_of(base, shapes), base_name=places[0].reference, rank=rank, energy=energy
    )


def _whole_model(name: str, *, trust_remote_code: bool) -> ModelPlace:
    place = locate(ModelSettings(id=name, trust_remote_code=trust_remote_code))
    if place.adapter_folder is not None:
        raise ModelError(f"{name} is an adapter already. Fold it into its base first: ftk merge {name} --out DIR")
    if is_stored_in_few_bits(read_config(place.folder), str(place.folder)):
        raise ModelError(f"{place.folder} holds its weights in few bits. Name the 16-bit model it was made from")
    return place
