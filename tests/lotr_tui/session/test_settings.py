"""Settings: kept exactly, checked when read, never lost to damage or to a disk that cannot be written."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App

import lotr_tui.session.settings as module
from engine.errors import RunError, UnusableInput
from engine.generation.settings import SamplerSettings
from lotr_tui.session.settings import KeptSettings, Settings, settings_file

names = st.text(st.characters(categories=["Lu", "Ll", "Nd", "Lo"]), min_size=1, max_size=12)
samplers = st.builds(
    SamplerSettings,
    repetition_penalty=st.floats(0.1, 10),
    temperature=st.floats(0, 2),
    top_k=st.integers(0, 1_000_000),
    top_p=st.floats(0, 1, exclude_min=True),
    min_p=st.floats(0, 1),
    max_tokens=st.integers(1, 1_000_000),
)
settings = st.builds(
    Settings,
    theme=names,
    sampler=samplers,
    pace=st.floats(0, 1000),
    way=st.sampled_from(["continue", "reply"]),
    keymap=st.dictionaries(names, st.lists(names, min_size=1, max_size=3).map(",".join), max_size=4),
)


@given(settings)
def test_what_is_written_is_read_back(given_settings):
    assert Settings.from_json(given_settings.to_json()) == given_settings


def test_the_next_session_finds_what_this_one_kept(home):
    assert KeptSettings().current == Settings()
    assert KeptSettings().keep(theme="nord", way="reply", sampler=SamplerSettings(top_k=5)) == ""
    found = KeptSettings()
    assert found.notice == ""
    assert found.current == Settings(theme="nord", way="reply", sampler=SamplerSettings(top_k=5))
    assert settings_file() == home / "settings.json"
    assert [path.name for path in home.iterdir()] == ["settings.json"]


def test_what_is_missing_has_its_default(home):
    home.mkdir()
    settings_file().write_text('{"version": 1, "sampler": {"top_k": 7}}')
    assert KeptSettings().current == replace(Settings(), sampler=SamplerSettings(top_k=7))


def test_its_keymap_is_what_textual_takes(home):
    KeptSettings().keep(keymap={"play.stop": "ctrl+x,?"})
    app = App()
    app.set_keymap(KeptSettings().current.keymap)
    assert app._keymap == {"play.stop": "ctrl+x,question_mark"}


def record(**changes):
    return json.dumps({"version": 1, **asdict(Settings()), **changes})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "not JSON"),
        ("[1]", "no settings"),
        ("null", "no settings"),
        ("[" * 100_000, "not JSON"),
        ('{"version": 1, "pace": NaN}', "not JSON"),
        ('{"pace": 25}', "version"),
        (record(version=True), "version"),
        (record(version=2), "newer"),
        (record(pace=-1), "pace -1 is out of range"),
        (record(pace=True), "pace True is of the wrong type"),
        ('{"version": 1, "pace": 1e999}', "pace inf is of the wrong type"),
        (record(pace=10**400), "pace"),
        (record(theme=3), "theme 3 is of the wrong type"),
        (record(theme=""), "theme '' is no name"),
        (record(theme="\x1b[31m"), "theme"),
        (record(way="sing"), "way 'sing'"),
        (record(way=[]), "way []"),
        (record(sampler=3), "SamplerSettings"),
        (record(sampler={"temperature": 3}), "temperature 3 is out of range"),
        (record(sampler={"top_k": 2.5}), "top_k 2.5 is of the wrong type"),
        (record(sampler={"charm": 1}), "unknown field 'charm'"),
        (record(keymap={"play.stop": 5}), "keymap"),
        (record(keymap={"play.stop": "ctrl+x,,"}), "keys 'ctrl+x,,' of 'play.stop'"),
        (record(colour="red"), "unknown field 'colour'"),
    ],
)
def test_a_damaged_or_newer_file_is_set_aside_and_said(home, content, why):
    home.mkdir()
    settings_file().write_text(content)
    found = KeptSettings()
    assert found.current == Settings()
    assert why in found.notice
    assert "set aside as settings.json.damaged-1" in found.notice
    assert found.notice.isprintable()
    assert found.keep(theme="nord") == ""
    assert (home / "settings.json.damaged-1").read_text() == content
    assert KeptSettings().current == Settings(theme="nord")


def test_bytes_that_are_no_text_are_set_aside(home):
    home.mkdir()
    settings_file().write_bytes(b"\xff\xfe{}")
    assert "set aside" in KeptSettings().notice
    assert (home / "settings.json.damaged-1").read_bytes() == b"\xff\xfe{}"


def test_no_damaged_file_takes_the_place_of_another(home):
    home.mkdir()
    for number in (1, 2, 3):
        settings_file().write_text(f"damage {number}")
        assert f"damaged-{number}" in KeptSettings().notice
    assert sorted(p.read_text() for p in home.iterdir()) == ["damage 1", "damage 2", "damage 3"]


def test_a_file_that_became_newer_while_the_session_ran_is_set_aside_too(home):
    kept = KeptSettings()
    kept.keep(theme="nord")
    settings_file().write_text(record(version=2))
    assert "newer" in kept.keep(theme="gruvbox")
    assert json.loads((home / "settings.json.damaged-1").read_text())["version"] == 2
    assert KeptSettings().current.theme == "gruvbox"


def test_what_cannot_be_set_aside_is_not_overwritten(home, monkeypatch):
    home.mkdir()
    settings_file().write_text("damage")

    def refuse(*_arguments, **_more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "replace", refuse)
    kept = KeptSettings()
    assert "cannot be set aside: Permission denied" in kept.notice
    assert kept.keep(theme="nord")
    assert kept.keep(theme="gruvbox") == ""
    assert kept.current.theme == "gruvbox"
    monkeypatch.undo()
    monkeypatch.setenv("LOTR_TUI_HOME", str(home))
    assert settings_file().read_text() == "damage"
    assert [path.name for path in home.iterdir()] == ["settings.json"]


def test_a_full_disk_is_said_once_until_it_has_room_again(home, monkeypatch):
    kept = KeptSettings()

    def full(path, content):
        raise RunError("unused") from OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_atomically", full)
    said = kept.keep(theme="nord")
    assert "not kept" in said
    assert "No space left on device" in said
    assert kept.keep(theme="gruvbox") == ""
    assert kept.current.theme == "gruvbox"
    monkeypatch.undo()
    assert kept.keep(pace=3.0) == ""
    assert KeptSettings(kept.path).current == Settings(theme="gruvbox", pace=3.0)
    monkeypatch.setattr(module, "write_atomically", full)
    assert "No space" in kept.keep(theme="nord")


def test_a_home_that_is_no_folder_is_said_and_not_fatal(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    kept = KeptSettings(tmp_path / "file" / "settings.json")
    assert kept.current == Settings()
    assert "cannot be read" in kept.notice
    assert "not kept" in kept.keep(theme="nord")
    assert (tmp_path / "file").read_text() == "in the way"


def test_a_file_that_must_not_be_read_is_not_overwritten(home, monkeypatch):
    home.mkdir()
    settings_file().write_text("secret")

    def refuse(*_arguments, **_more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("lotr_tui.session.settings.read_file", refuse)
    kept = KeptSettings()
    assert "cannot be read: Permission denied" in kept.notice
    assert "cannot be read" in kept.keep(theme="nord")
    assert kept.path.read_bytes() == b"secret"


@pytest.mark.parametrize(
    "changes", [{"pace": float("nan")}, {"pace": 1e6}, {"way": "sing"}, {"theme": ""}, {"keymap": {"a": " "}}]
)
def test_a_bad_value_is_refused_and_changes_nothing(home, changes):
    kept = KeptSettings()
    with pytest.raises(UnusableInput):
        kept.keep(**changes)
    assert kept.current == Settings()
    assert not settings_file().exists()
