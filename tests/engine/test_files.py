import stat
import threading
from pathlib import Path

import pytest

from engine.errors import RunError
from engine.files import assets_folder, home, runs_folder, write_atomically


def test_home_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("LOTR_TUI_HOME", str(tmp_path / "here"))
    assert home() == tmp_path / "here"
    assert runs_folder() == tmp_path / "here" / "runs"


def test_home_understands_a_tilde(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOTR_TUI_HOME", "~/there")
    assert home() == tmp_path / "there"


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
