"""Checks of the path that the user types for an export."""

import os
from pathlib import Path

import pytest

from engine.errors import InvalidInputError
from lotr_tui.session.export import check_export_target, suggest_export_path


def test_suggestion_names_no_existing_file(tmp_path):
    assert suggest_export_path(tmp_path, "v0.3 party.md").name == "v0.3 party.md"
    (tmp_path / "v0.3 party.md").touch()
    (tmp_path / "v0.3 party-2.md").symlink_to("nowhere")
    assert suggest_export_path(tmp_path, "v0.3 party.md").name == "v0.3 party-3.md"


def test_suggestion_is_in_the_current_folder_if_the_last_one_is_gone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    for gone in (tmp_path / "gone", tmp_path / "file" / "gone", tmp_path / ("x" * 300)):
        assert suggest_export_path(gone, "a.md") == tmp_path / "a.md"


def test_missing_folder_is_named_and_not_created(tmp_path):
    target = check_export_target(f"{tmp_path}/a/b/c.md", is_folder=False)
    assert target.missing_folder == tmp_path / "a" / "b"
    assert check_export_target(f"{tmp_path}/a/b", is_folder=True).missing_folder == tmp_path / "a"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "type a path"), ("new/", "is a folder; add the name of a file"), ("pipe", "is not a regular file"),
        ("file/x.md", "cannot be used: Not a directory|is a file, not a folder"), ("x" * 10_000, "File name too long"),
        ("~nobody-of-this-name/x", "is not a path"), ("a\ud800b", "is not a path"),
        ("loop/x", "is not a path|symbolic links"),
    ],
)  # fmt: skip
def test_unusable_file_is_refused_in_one_line(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe")
    Path("file").touch()
    Path("loop").symlink_to("loop")
    with pytest.raises(InvalidInputError, match=message) as raised:
        check_export_target(text, is_folder=False)
    assert str(raised.value).isprintable()


def test_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    assert check_export_target(f"{tmp_path}/empty/", is_folder=True).path == tmp_path / "empty"
    with pytest.raises(InvalidInputError, match="is not empty, and nothing in it is replaced"):
        check_export_target(str(tmp_path), is_folder=True)
    with pytest.raises(InvalidInputError, match="is a file; choose a new folder"):
        check_export_target(f"{tmp_path}/file", is_folder=True)
