import hashlib
from pathlib import Path
from threading import Event

import pytest

from ftk.core.file_hash import WINDOW_BYTES, sha256
from ftk.runs.merging.hashes import Hashes


@pytest.mark.parametrize("size", [0, 1, WINDOW_BYTES, WINDOW_BYTES + 1])
def test_a_file_of_any_size(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_a_link_of_another_name_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert sha256(tmp_path / "link") == hashlib.sha256(b"abc").hexdigest()


def test_it_may_be_given_up(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    stop = Event()
    stop.set()
    assert sha256(tmp_path / "file", stop=stop) == ""


def test_hashing_begins_with_the_folders_that_a_merge_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(b"abc")
    (tmp_path / "merge.yaml").write_text(f"models: [{{model: {tmp_path / 'model'}}}, {{model: nowhere}}]")
    (tmp_path / "broken.yaml").write_text("models: [")
    with Hashes() as hashes:
        hashes.start_early(str(tmp_path / "broken.yaml"))
        hashes.start_early(str(tmp_path / "merge.yaml"))
        expected = hashes.of([file])
        file.write_bytes(b"changed")
        assert hashes.of([file]) == expected == {"model.safetensors": hashlib.sha256(b"abc").hexdigest()}
