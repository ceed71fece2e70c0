import contextlib
import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from engine.errors import RunError
from engine.storage.files import assets_folder, home, located, replacing, runs_folder, write_atomically
from tests.support.file_limits import no_file_longer_than


def test_home_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "here"))
    assert home() == tmp_path / "here"
    assert runs_folder() == tmp_path / "here" / "runs"


def test_home_understands_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOTR_TUI_HOME", "~/there")
    assert home() == tmp_path / "there"


def test_a_home_of_nobody_is_refused(monkeypatch):
    monkeypatch.setenv("LOTR_TUI_HOME", "~nobody-there/x")
    with pytest.raises(RunError, match="LOTR_TUI_HOME is ~nobody-there/x, and nobody of that name has a home"):
        home()


def test_a_path_is_located_from_any_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to("there")
    there = {"~/a": "a", "a/../b": "b", "link": "there"}
    there |= {name: name for name in ("loop", "~nobody-there/x", "\0")}  # they lead nowhere
    assert {name: str(located(Path(name))) for name in there} == {
        name: str(tmp_path / where) for name, where in there.items()
    }


@pytest.mark.parametrize("value", [None, ""])
def test_home_is_the_platforms_data_folder_otherwise(monkeypatch, value):
    monkeypatch.delenv("LOTR_TUI_HOME", raising=False)
    if value is not None:
        monkeypatch.setenv("LOTR_TUI_HOME", value)
    assert home().name == "lotr-tui"
    assert home().is_absolute()
    assert home() != Path.home()


def test_assets_hold_the_dialogues():
    assert (assets_folder() / "dialogues.csv").is_file()


def test_writing_makes_a_file_others_can_read(tmp_path):
    write_atomically(tmp_path / "a.json", b"one")
    assert (tmp_path / "a.json").read_bytes() == b"one"
    assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o644


def test_writing_replaces_and_leaves_nothing_beside(tmp_path):
    write_atomically(tmp_path / "a.json", b"a long first content")
    write_atomically(tmp_path / "a.json", b"short")
    assert (tmp_path / "a.json").read_bytes() == b"short"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path):
    with pytest.raises(RunError, match=r"cannot write .*gone/a\.json"):
        write_atomically(tmp_path / "gone" / "a.json", b"x")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_replaced_stays_and_nothing_is_left_beside(tmp_path):
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


def test_the_content_reaches_the_disk_before_the_name_and_the_name_after_it(tmp_path, monkeypatch):
    path, done = tmp_path / "model", []
    plain_fsync, plain_replace = os.fsync, Path.replace

    def fsync(file):
        done.append("folder" if stat.S_ISDIR(os.fstat(file).st_mode) else f"{os.fstat(file).st_size} bytes")
        plain_fsync(file)

    def replace(self, target):
        done.append(f"is {target.name}")
        return plain_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_atomically(path, b"12345")
    assert done == ["5 bytes", "is model", "folder"]


def test_a_folder_that_cannot_be_synced_is_written_all_the_same(tmp_path, monkeypatch):
    plain_fsync = os.fsync

    def fsync(file):
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "this file system cannot")
        plain_fsync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "a", b"x")
    assert (tmp_path / "a").read_bytes() == b"x"


def test_what_was_there_is_kept_under_another_name_without_a_copy(tmp_path):
    path, previous = tmp_path / "a", tmp_path / "b"
    for content, before in ((b"one", None), (b"two", b"one"), (b"three", b"two")):
        file = path.stat().st_ino if path.exists() else None
        write_atomically(path, content, previous)
        assert path.read_bytes() == content
        assert (previous.read_bytes() if previous.exists() else None) == before
        assert file is None or previous.stat().st_ino == file


def test_on_a_full_disk_both_stay(tmp_path):
    path, previous = tmp_path / "a", tmp_path / "b"
    for content in (b"one", b"two"):
        write_atomically(path, content, previous)
    with no_file_longer_than(2), pytest.raises(RunError, match=r"cannot write .*/a: File too large"):
        write_atomically(path, b"three", previous)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {"a": b"two", "b": b"one"}


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_overwrites_none(tmp_path, monkeypatch, links):
    if not links:  # as on a FAT file system

        def refuse(*_):
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    for content in (b"one", b"two"):
        with contextlib.suppress(FileExistsError), replacing(tmp_path / "a", new=True) as file:
            file.write(content)
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {"a": b"one"}
    assert (tmp_path / "a").stat().st_nlink == 1


def test_what_breaks_while_it_is_written_changes_nothing(tmp_path):
    write_atomically(tmp_path / "a", b"one")
    with contextlib.suppress(ZeroDivisionError), replacing(tmp_path / "a") as file:
        file.write(b"two")
        raise ZeroDivisionError
    assert {item.name: item.read_bytes() for item in tmp_path.iterdir()} == {"a": b"one"}
