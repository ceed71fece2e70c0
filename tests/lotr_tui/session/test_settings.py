"""Settings: saved exactly, validated when read, not lost through damage or a full disk."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidInputError
from engine.generation.settings import SamplerSettings
from lotr_tui.session.settings import MAX_MODELS, ModelSettings, Settings, SettingsStore, settings_file
from tests.support.files import no_file_longer_than
from tests.support.sessions import sampler_settings, update_settings

names = st.text(st.characters(categories=["Lu", "Ll", "Nd", "Lo"]), min_size=1, max_size=12)
roles = st.just("") | names
model_settings = st.builds(ModelSettings, sampler_settings, st.integers(0, 64), roles, roles)
settings = st.builds(
    Settings, theme=names, models=st.dictionaries(names, model_settings, max_size=3), pace=st.floats(0, 1000),
    reply_mode=st.sampled_from(["conversation", "continue", "reply"]), preview_unit=st.sampled_from(["word", "token"]),
    export_folder=names.map("/exports of {}".format) | st.just(""),
)  # fmt: skip


@given(settings)
def test_encoded_settings_are_decoded_unchanged(original):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "settings.json"
        path.write_text(original.to_json())
        assert SettingsStore(path).current == original


def test_next_session_reads_the_last_change_of_each_setting(home):
    first, second = SettingsStore(), SettingsStore()
    assert (first.current, first.notice) == (Settings(), "")
    assert update_settings(first, pace=5.0) == ""
    update_settings(second, theme="nord")
    update_settings(first, reply_mode="reply")
    expected = Settings(theme="nord", pace=5.0, reply_mode="reply")
    assert SettingsStore().current == expected
    assert second.current == Settings(theme="nord")  # a session keeps its own settings until it is closed
    update_settings(second, pace=10.0)
    assert SettingsStore().current == replace(expected, pace=10.0)
    assert [path.name for path in home.iterdir()] == ["settings.json"]


def test_each_model_has_settings_of_its_own_and_the_latest_are_kept(home):
    first, second = SettingsStore(), SettingsStore()
    greedy, wild = ModelSettings(SamplerSettings(temperature=0)), ModelSettings(SamplerSettings(temperature=2))
    update_settings(first, models={"a": greedy, "b": greedy})
    update_settings(second, models={"c": wild})
    update_settings(first, models={"a": wild})
    assert SettingsStore().current.models == {"a": wild, "b": greedy, "c": wild}
    update_settings(first, models={str(number): greedy for number in range(MAX_MODELS - 1)})
    assert list(SettingsStore().current.models)[:2] == ["a", "0"]


def record(**changes):
    return json.dumps({"version": 5, **asdict(Settings()), **changes})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "expected an object"), ("[" * 100_000, "not valid JSON"),
        ('{"version": 2, "pace": NaN}', "not valid JSON"), ('{"pace": 25}', "version"), (record(version=6), "newer"),
        (record(version=4), "written by an older lotr-tui (format 4); use that release to read it"),
        (record(way="reply"), "unknown field 'way'"), (record(pace=-1), "pace -1.0 is out of range"),
        (record(export_folder="/a\x1b[2J"), "is not an absolute path"), (record(theme="\x1b[31m"), "theme"),
        (record(reply_mode="sing"), "reply_mode: invalid enum value 'sing'"),
        (record(models={"a": {"speaking_as": "\x1b[31m"}}), "speaking_as '\\x1b[31m' is not a name"),
        (record(models={"a": {"best_of": 65}}), "best-of 65 is out of range"),
        (record(models={"a": {"sampler": {"temperature": 3}}}), "temperature 3"),
        (record(models={"a": {"sampler": {"charm": 1}}}), "unknown field 'models.a.sampler.charm'"),
    ],
)  # fmt: skip
def test_damaged_or_foreign_file_is_set_aside_and_reported_in_one_line(home, content, message):
    home.mkdir()
    settings_file().write_text(content)
    store = SettingsStore()
    assert store.current == Settings()
    assert store.notice.startswith(f"{settings_file()} cannot be used: ")
    assert message in store.notice
    assert store.notice.endswith("; set aside as settings.json.damaged-1; the defaults are used")
    assert store.notice.isprintable()
    assert update_settings(store, theme="nord") == ""
    assert (home / "settings.json.damaged-1").read_text() == content
    assert SettingsStore().current == Settings(theme="nord")


def test_file_of_a_newer_version_written_during_the_session_is_set_aside(home):
    store = SettingsStore()
    update_settings(store, theme="nord")
    settings_file().write_text(record(version=6))
    assert "newer" in update_settings(store, theme="gruvbox")
    assert json.loads((home / "settings.json.damaged-1").read_text())["version"] == 6
    assert SettingsStore().current.theme == "gruvbox"


def test_file_that_cannot_be_set_aside_is_not_overwritten(home, monkeypatch):
    home.mkdir()
    settings_file().write_text("damage")

    def refuse(*_arguments):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", refuse)
        store = SettingsStore()
        assert "cannot be set aside: Permission denied" in store.notice
        assert update_settings(store, theme="nord")
        assert store.current.theme == "nord"
    assert [(path.name, path.read_text()) for path in home.iterdir()] == [("settings.json", "damage")]


def test_full_disk_is_reported_once_until_a_write_succeeds(home):
    store = SettingsStore()
    with no_file_longer_than(0):
        assert "not saved" in (notice := update_settings(store, theme="nord"))
        assert "File too large" in notice
        assert update_settings(store, theme="gruvbox") == ""
        assert store.current.theme == "gruvbox"
    assert update_settings(store, pace=3.0) == ""
    assert SettingsStore(store.path).current == Settings(theme="gruvbox", pace=3.0)
    with no_file_longer_than(0):
        assert "File too large" in update_settings(store, theme="nord")


@pytest.mark.parametrize("changes", [{"pace": float("nan")}, {"pace": 1e6}, {"theme": ""}])
def test_invalid_value_is_refused_and_changes_nothing(home, changes):
    store = SettingsStore()
    with pytest.raises(InvalidInputError):
        update_settings(store, **changes)
    assert store.current == Settings()
    assert not settings_file().exists()
