import os
import subprocess
from pathlib import Path

import pytest

from ftk.core.atomic import atomic_file, atomic_folder, atomic_write, remove_folder, remove_leftovers


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_appears_when_it_is_complete_and_replaces_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("one", "two"):
        with atomic_folder(target) as unfinished:
            (unfinished / "sub").mkdir()
            (unfinished / "sub" / content).write_text(content)
            assert not target.exists() or names(target / "sub") == ["one"]
        assert names(target / "sub") == [content]
    assert names(tmp_path) == ["model"]


def test_an_error_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_folder(target) as unfinished:
        (unfinished / "a").write_text("old")
    with pytest.raises(IsADirectoryError), atomic_folder(target) as unfinished:
        unfinished.write_text("a folder is no file")
    assert (target / "a").read_text() == "old"
    assert names(tmp_path) == ["model"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "state.json"
    atomic_write(target, "old")
    atomic_write(target, b"new")
    assert target.read_bytes() == b"new"
    with pytest.raises(UnicodeEncodeError):
        atomic_write(target, "\udc00")
    assert target.read_bytes() == b"new"
    assert names(tmp_path) == ["state.json"]


def test_a_file_that_is_filled_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "rows.jsonl"
    for content in ("one", "two"):
        with atomic_file(target) as unfinished:
            unfinished.write_text(content)
            assert not target.exists() or target.read_text() == "one"
        assert target.read_text() == content
    with pytest.raises(UnicodeEncodeError), atomic_file(target) as unfinished:
        unfinished.write_text("\udc00", encoding="utf-8")
    assert target.read_text() == "two"
    assert names(tmp_path / "new") == ["rows.jsonl"]


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / ".step-8.ftk-tmp-12").mkdir()
    (tmp_path / ".state.json.ftk-tmp-12").write_text("half")
    (tmp_path / "step-4").mkdir()
    (tmp_path / ".hidden").write_text("")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "step-4"]
    remove_folder(tmp_path / "step-4")
    assert names(tmp_path) == [".hidden"]


def test_of_a_name_only_what_ended_processes_left_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    for name in ("out", "out*", "output"):
        (tmp_path / f".{name}.ftk-tmp-{ended.pid}").mkdir()
    (tmp_path / f".out.ftk-tmp-{os.getpid()}").mkdir()
    (tmp_path / f".out.ftk-tmp-{os.getppid()}-folded").mkdir()
    (tmp_path / f".out.ftk-tmp-old-{ended.pid}").mkdir()
    kept = [f".out.ftk-tmp-{os.getpid()}", f".out.ftk-tmp-{os.getppid()}-folded"]
    remove_leftovers(tmp_path, "out")
    assert names(tmp_path) == sorted([*kept, f".out*.ftk-tmp-{ended.pid}", f".output.ftk-tmp-{ended.pid}"])
    remove_leftovers(tmp_path, "out*")
    assert names(tmp_path) == sorted([*kept, f".output.ftk-tmp-{ended.pid}"])
