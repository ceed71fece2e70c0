"""Folders of the application, and files that are written completely or not at all."""

import contextlib
import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from engine.errors import RunError
from engine.storage.files import absolute_path, app_home, assets_dir, atomic_replace, default_runs_dir, write_atomically
from tests.support.file_limits import no_file_longer_than


def test_the_home_is_set_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "here"))
    assert app_home() == tmp_path / "here"
    assert default_runs_dir() == tmp_path / "here" / "runs"


def test_a_tilde_in_the_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOTR_TUI_HOME", "~/there")
    assert app_home() == tmp_path / "there"


def test_a_home_of_an_unknown_user_is_refused(monkeypatch):
    monkeypatch.setenv("LOTR_TUI_HOME", "~nobody-there/x")
    with pytest.raises(RunError, match="LOTR_TUI_HOME=~nobody-there/x names an unknown user"):
        app_home()


def test_a_path_becomes_absolute(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("there")
    there = {"~/a": "a", "a/../b": "b", "link": "there"}
    there |= {name: name for name in ("loop", "~nobody-there/x", "\0")}  # these cannot be resolved
    assert {name: str(absolute_path(Path(name))) for name in there} == {
        name: str(tmp_path / where) for name, where in there.items()
    }


@pytest.mark.parametrize("value", [None, ""])
def test_the_default_home_is_the_data_folder_of_the_platform(monkeypatch, value):
    monkeypatch.delenv("LOTR_TUI_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("LOTR_TUI_HOME", value)
    assert app_home().name == "lotr-tui"
    assert app_home().is_absolute()
    assert app_home() != Path.home()


def test_the_assets_contain_the_dialogues():
    assert (assets_dir() / "dialogues.csv").is_file()


def test_a_written_file_is_readable_by_others(tmp_path):
    write_atomically(tmp_path / "a.json", b"one")
    assert (tmp_path / "a.json").read_bytes() == b"one"
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o644


def test_a_file_is_replaced_and_no_temporary_file_left(tmp_path):
    write_atomically(tmp_path / "a.json", b"a long first content")
    write_atomically(tmp_path / "a.json", b"short")
    assert (tmp_path / "a.json").read_bytes() == b"short"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(RunError, match=r"cannot write .*gone/a\.json"):
        write_atomically(tmp_path / "gone" / "a.json", b"x")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_replaced_and_no_temporary_file_left(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "inside").write_text("kept")
    with pytest.raises(RunError, match="taken"):
        write_atomically(tmp_path / "taken", b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken" / "inside").read_text() == "kept"


def test_a_reader_sees_the_old_file_or_the_new_one(tmp_path):
    path, contents = tmp_path / "model", [letter * 300_000 for letter in (b"a", b"b")]
    write_atomically(path, contents[0])
    seen, done = [], threading.Event()

    def read():
        while not done.is_set():
            content = path.read_bytes()
            seen.append(content if content in contents else b"torn")

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(40):
        write_atomically(path, contents[number % 2])
    done.set()
    reader.join()
    assert seen
    assert b"torn" not in seen


def test_the_content_is_synced_before_the_rename_and_the_folder_after_it(tmp_path, monkeypatch):
    path, calls = tmp_path / "model", []
    plain_fsync, plain_replace = os.fsync, Path.replace

    def fsync(file):
        calls.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else f"{os.fstat(file).st_size} bytes")
        plain_fsync(file)

    def replace(self, target):
        calls.append(f"rename to {target.name}")
        return plain_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(path, b"12345")
    assert calls == ["5 bytes", "rename to model", "folder"]


def test_a_folder_that_cannot_be_synced_is_no_error(tmp_path, monkeypatch):
    plain_fsync = os.fsync

    def fsync(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "this file system cannot")
        plain_fsync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_the_backup_is_the_renamed_old_file(tmp_path):
    path, previous = tmp_path / "a", tmp_path / "b"
    for content, before in ((b"one", None), (b"two", b"one"), (b"three", b"two")):
        file = path.stat().st_ino if path.exists() else None
        write_atomically(path, content, previous)
        assert path.read_bytes() == content
        assert (previous.read_bytes() if previous.exists() else None) == before
        assert file is None or previous.stat().st_ino == file


def test_a_full_disk_leaves_the_file_and_its_backup_unchanged(tmp_path):
    path, previous = tmp_path / "a", tmp_path / "b"
    for content in (b"one", b"two"):
        write_atomically(path, content, previous)
    with no_file_longer_than(2), pytest.raises(RunError, match=r"cannot write .*/a: File too large"):
        write_atomically(path, b"three", previous)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {"a": b"two", "b": b"one"}


@pytest.mark.parametrize("has_hard_links", [True, False])
def test_an_exclusive_write_never_overwrites(tmp_path, monkeypatch, has_hard_links):
    if not has_hard_links:  # as on a FAT file system

        def refuse(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    for content in (b"one", b"two"):
        with contextlib.suppress(FileExistsError), atomic_replace(tmp_path / "a", exclusive=True) as file:
            file.write(content)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {"a": b"one"}
    assert (tmp_path / "a").stat().st_nlink == 1


def test_an_exception_while_writing_changes_nothing(tmp_path):
    write_atomically(tmp_path / "a", b"one")
    with contextlib.suppress(ZeroDivisionError), atomic_replace(tmp_path / "a") as file:
        file.write(b"two")
        raise ZeroDivisionError
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {"a": b"one"}
