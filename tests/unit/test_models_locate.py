"""Every way to name a model, and every way to name one wrongly."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import errors as hub

from ftk.core.errors import ModelError
from ftk.models.locate import locate
from ftk.models.settings import ModelSettings


def find(name: str | Path, **settings: Any) -> Any:
    return locate(ModelSettings(id=str(name), **settings))


def make_model(folder: Path, *, card: str = "") -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"")
    if card:
        (folder / "README.md").write_text(card)
    return folder


def make_adapter(folder: Path, base: str | None) -> Path:
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (folder / "adapter_model.safetensors").write_bytes(b"")
    return folder


def test_the_shipped_model_is_found_with_its_licence() -> None:
    place = find("ftk://tiny")
    assert (place.folder / "config.json").exists()
    assert (place.reference, place.licence) == ("ftk://tiny", "apache-2.0")


def test_an_unknown_shipped_model_lists_those_that_are() -> None:
    with pytest.raises(ModelError, match=r"no model ftk://tinny ships with ftk. There is ftk://tiny"):
        find("ftk://tinny")


def test_a_revision_of_what_is_not_on_the_hub_is_refused(tmp_path: Path) -> None:
    for name in ("ftk://tiny", str(tmp_path)):
        with pytest.raises(ModelError, match="does not come from the hub, so it has no revision v2"):
            locate(ModelSettings(id=name, revision="v2"))


def test_a_folder_and_a_run_folder_are_found(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "run" / "model", card="---\nlicense: other\nlicense_name: mine\n---\n# Card")
    for name in (folder, folder.parent):
        place = find(name)
        assert (place.folder, place.reference, place.licence) == (folder, str(folder), "mine")


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("# none", None),
        ("---\nlicense: mit\n---\n", "mit"),
        ("---\nlicense: [a, b]\n---", "a, b"),
        ("---\n: :\n---", None),
    ],
)
def test_the_licence_is_what_the_card_says(tmp_path: Path, card: str, licence: str | None) -> None:
    assert find(make_model(tmp_path / "m", card=card)).licence == licence


def test_an_adapter_is_found_with_its_base(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    adapter = make_adapter(tmp_path / "run" / "model", str(base))
    place = find(tmp_path / "run")
    assert (place.folder, place.adapter_folder, place.tokenizer_folder) == (base, adapter, base)
    (adapter / "tokenizer_config.json").write_text("{}")
    assert find(adapter).tokenizer_folder == adapter


def test_an_adapter_whose_base_is_missing_says_which_and_where_to_correct_it(tmp_path: Path) -> None:
    adapter = make_adapter(tmp_path / "adapter", str(tmp_path / "gone"))
    with pytest.raises(
        ModelError, match=r"needs its base .*gone, which .* no folder .*correct base_model_name_or_path in"
    ):
        find(adapter)
    with pytest.raises(ModelError, match="does not say its base"):
        find(make_adapter(tmp_path / "nameless", None))
    with pytest.raises(ModelError, match="is an adapter itself"):
        find(make_adapter(tmp_path / "second", str(make_adapter(tmp_path / "first", "ftk://tiny"))))
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match=r"expected adapter_model.safetensors, found a pickle only"):
        find(adapter)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"has no weights: expected model.safetensors"):
        find(folder)


def test_missing_shards_are_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    weight_map = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model-00001-of-00002.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match=r"lacks 1 of 2 files of weights: model-00002-of-00002.safetensors"):
        find(folder)


def test_a_broken_index_is_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model")
    (folder / "model.safetensors.index.json").write_text('{"weight_map": ')
    with pytest.raises(ModelError, match=r"index.json is broken: expected JSON with a weight_map"):
        find(folder)


def test_a_pickle_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"as a pickle only \(pytorch_model.bin\).*use_safetensors=False\).save_pretrained"
    ):
        find(folder)


def test_a_folder_that_is_no_model_names_those_in_it(tmp_path: Path) -> None:
    make_model(tmp_path / "runs" / "one" / "model")
    with pytest.raises(ModelError, match=r"is not a model folder.* Models are in .*runs/one$"):
        find(tmp_path / "runs")
    (tmp_path / "unfinished" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ModelError, match="has not finished"):
        find(tmp_path / "unfinished")
    make_model(tmp_path / "unfinished" / "checkpoints" / "best")
    with pytest.raises(ModelError, match=r"Models are in .*checkpoints/best"):
        find(tmp_path / "unfinished")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="Name a folder that transformers or PEFT saved"):
        find(tmp_path / "empty")
    with pytest.raises(ModelError, match="is a file"):
        find(make_model(tmp_path / "m") / "config.json")


def test_a_misspelt_folder_gets_the_nearest_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_model(tmp_path / "runs" / "orders")
    with pytest.raises(ModelError, match=r"there is no folder .*runs/ordres. Near it here: .*runs/orders"):
        find(tmp_path / "runs" / "ordres")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"there is no folder runs/ordres. Near it here: runs/orders"):
        find("runs/ordres")


class Hub:
    """Stands in for `snapshot_download`."""

    def __init__(self, answer: Path | Exception) -> None:
        self.answer = answer
        self.asked: dict[str, Any] = {}

    def __call__(self, repo_id: str, **asked: Any) -> str:
        self.asked = {"repo_id": repo_id, **asked}
        if isinstance(self.answer, Exception):
            raise self.answer
        return str(self.answer)


def test_a_hub_id_is_downloaded_as_safetensors_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Hub(make_model(tmp_path / "snapshots" / "abc123"))
    monkeypatch.setattr("huggingface_hub.snapshot_download", answer)
    place = find("someone/model", revision="main")
    assert (place.hub_id, place.revision, place.reference) == ("someone/model", "abc123", "someone/model")
    assert answer.asked["revision"] == "main"
    assert not {"*.bin", "*.pt", "*.py"} & set(answer.asked["allow_patterns"])
    find("someone/model", trust_remote_code=True)
    assert "*.py" in answer.asked["allow_patterns"]


RESPONSE: Any = SimpleNamespace(headers={}, request=None, status_code=404)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (hub.GatedRepoError("", response=RESPONSE), "its owners want to be asked first"),
        (hub.RepositoryNotFoundError("", response=RESPONSE), "neither a folder here nor a model on the hub"),
        (hub.RevisionNotFoundError("", response=RESPONSE), "no revision v9 on the hub"),
        (hub.LocalEntryNotFoundError(""), "the hub cannot be reached"),
        (hub.HfHubHTTPError("", response=RESPONSE), "the hub cannot be reached"),
    ],
)
def test_what_the_hub_answers_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", Hub(error))
    with pytest.raises(ModelError, match=message):
        find("someone/model", revision="v9")
