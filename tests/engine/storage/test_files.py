"""Folders of the application, files that are written completely or not at all."""

import contextlib
import errno
import os
import stat
from pathlib import Path

import pytest

from engine.errors import RunError
from engine.storage import files
from tests.support.files import no_file_longer_than


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class TestHome:
    def test_the_home_is_set_by_the_environment(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        for value, path in ((tmp_path / "here", tmp_path / "here"), ("~/there", tmp_path / "there")):
            monkeypatch.setenv("LOTR_TUI_HOME", str(value))
            assert (files.app_home(), files.default_runs_dir()) == (path, path / "runs")
        monkeypatch.setenv("LOTR_TUI_HOME", "~nobody-there/x")
        with pytest.raises(RunError, match="LOTR_TUI_HOME=~nobody-there/x names an unknown user"):
            files.app_home()
        monkeypatch.setenv("LOTR_TUI_HOME", "")
        assert (files.app_home().name, files.app_home().is_absolute()) == ("lotr-tui", True)

    def test_a_path_becomes_absolute(self, monkeypatch, tmp_path):
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "loop").symlink_to("loop")
        (tmp_path / "link").symlink_to("there")
        there = {"~/a": "a", "a/../b": "b", "link": "there"}
        there |= {name: name for name in ("loop", "~nobody-there/x", "\0")}  # these cannot be resolved
        for name, where in there.items():
            assert str(files.absolute_path(Path(name))) == str(tmp_path / where)


class TestAtomicWrite:
    def test_a_file_is_replaced_and_readable_by_others_and_no_temporary_file_left(self, tmp_path):
        for content in (b"a long first content", b"short"):
            files.write_atomically(tmp_path / "a.json", content)
            assert contents(tmp_path) == {"a.json": content}
        assert stat.S_IMODE((tmp_path / "a.json").stat().st_mode) == 0o644

    def test_a_missing_folder_or_a_folder_in_the_place_of_the_file_is_an_error_that_names_it(self, tmp_path):
        (tmp_path / "taken").mkdir()
        for path in (tmp_path / "gone" / "a.json", tmp_path / "taken"):
            with pytest.raises(RunError, match=f"cannot write {path}"):
                files.write_atomically(path, b"x")
        assert [path.name for path in tmp_path.rglob("*")] == ["taken"]

    def test_the_content_is_synced_before_the_rename_and_the_folder_after_it(self, tmp_path, monkeypatch):
        calls = []
        plain_replace = Path.replace

        def fsync(file):
            is_folder = stat.S_ISDIR(os.fstat(file).st_mode)
            calls.append("folder" if is_folder else f"{os.fstat(file).st_size} bytes")
            if is_folder:
                raise OSError(errno.EINVAL, "this file system cannot, which is no error")

        def replace(self, target):
            calls.append(f"rename to {target.name}")
            return plain_replace(self, target)

        monkeypatch.setattr(os, "fsync", fsync)
        monkeypatch.setattr(Path, "replace", replace)
        files.write_atomically(tmp_path / "model", b"12345")
        assert calls == ["5 bytes", "rename to model", "folder"]
        assert contents(tmp_path) == {"model": b"12345"}

    def test_a_failed_write_changes_nothing(self, tmp_path):
        path = tmp_path / "a"
        for content in (b"one", b"three"):
            files.write_atomically(path, content)
            assert contents(tmp_path) == {"a": content}
        with contextlib.suppress(ZeroDivisionError), files.atomic_replace(path) as file:
            file.write(b"four")
            raise ZeroDivisionError
        with no_file_longer_than(2), pytest.raises(RunError, match=r"cannot write .*/a: File too large"):
            files.write_atomically(path, b"four")
        assert contents(tmp_path) == {"a": b"three"}

    def test_an_exclusive_write_never_overwrites(self, tmp_path):
        for content in (b"one", b"two"):
            with contextlib.suppress(FileExistsError), files.atomic_replace(tmp_path / "a", exclusive=True) as file:
                file.write(content)
        assert contents(tmp_path) == {"a": b"one"}


class TestFolders:
    def test_files_are_written_into_a_new_or_an_empty_folder(self, tmp_path):
        for folder in (tmp_path / "new" / "folder", tmp_path / "empty"):
            files.write_folder(folder, {"a": b"one", "b": b"two"})
            assert contents(folder) == {"a": b"one", "b": b"two"}
            (tmp_path / "empty").mkdir(exist_ok=True)
        for path in (tmp_path / "empty", tmp_path / "empty" / "a"):
            with pytest.raises(RunError, match="exists, and nothing is overwritten"):
                files.write_folder(path, {"c": b"three"})

    def test_a_failure_leaves_no_file(self, tmp_path):
        with no_file_longer_than(3), pytest.raises(RunError, match=r"cannot write .*/b: File too large"):
            files.write_folder(tmp_path / "r", {"a": b"one", "b": b"longer"})
        assert contents(tmp_path / "r") == {}
