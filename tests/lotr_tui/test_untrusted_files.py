"""Hostile, huge and outdated files of sessions and runs, and control characters in them."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.widgets import OptionList

from engine.errors import InvalidInputError, TrainingError
from engine.events import Diagnosed, Sampled, Started, Warned, event_to_dict
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, SAMPLES_FILE
from engine.runs.loading import load_model
from lotr_tui.app import LotrApp
from lotr_tui.cli.train_console import ProgressFormatter
from lotr_tui.monitor.background import resume_in_background
from lotr_tui.monitor.export import export_csv
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.text.text_input import MAX_TEXT_CHARACTERS, marks_to_newlines, newlines_to_marks
from lotr_tui.session import saved_session
from lotr_tui.session.history import HistoryError, PromptHistory
from lotr_tui.session.saved_session import parse_session
from lotr_tui.session.session_file import SessionError, SessionWriter, list_sessions, load_session
from lotr_tui.session.settings import SettingsStore
from tests.faults.hostile_content import CONFIGS, SESSIONS, SETTINGS_FILES, HostileFile
from tests.support.files import write_run, write_sparse_file
from tests.support.pilot import lines_of, until
from tests.support.sessions import saved_reply

ESCAPES = "\x1b]0;title\x07\x9b2J\u202e"


def make_pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def make_sparse_file(path: Path) -> None:
    write_sparse_file(path)


UNREADABLE_FILES: list[Callable[[Path], None]] = [make_pipe, link_to_zeros, make_sparse_file]


@pytest.fixture
def folder(home: Path) -> Path:
    (home / "sessions").mkdir(parents=True)
    return home


# Files that are not regular, or too large


@pytest.mark.parametrize("create", UNREADABLE_FILES)
def test_unreadable_settings_are_not_overwritten_and_defaults_apply(
    folder: Path, create: Callable[[Path], None]
) -> None:
    create(folder / "settings.json")
    store = SettingsStore()
    assert "cannot be read: " in store.notice
    assert "cannot be read: " in store.update(pace=5.0)
    assert store.current.pace == 5.0


def test_settings_that_are_a_link_to_themselves_are_not_overwritten(folder: Path) -> None:
    path = folder / "settings.json"
    path.symlink_to(path.name)
    assert "cannot be read: " in SettingsStore().update(pace=5.0)
    assert path.is_symlink()


@pytest.mark.parametrize("create", [make_pipe, link_to_zeros])
@pytest.mark.parametrize("name", ["history.jsonl", "history.lock"])
def test_prompt_is_kept_in_memory_if_the_history_is_not_a_regular_file(
    folder: Path, name: str, create: Callable[[Path], None]
) -> None:
    create(folder / name)
    history = PromptHistory()
    with pytest.raises(HistoryError, match="prompts are not saved"):
        history.add("the road")
    assert history.entries == ["the road"]


@pytest.mark.parametrize("content", [None, '"the road"\n'])
def test_history_is_not_written_through_a_link(folder: Path, content: str | None) -> None:
    target = folder / "elsewhere"
    if content is not None:
        target.write_text(content)
    (folder / "history.jsonl").symlink_to(target)
    history = PromptHistory()
    with pytest.raises(HistoryError, match=r"history\.jsonl: symbolic links are not followed for writing"):
        history.add("the ring")
    assert history.entries[-1] == "the ring"
    assert (target.read_text() if target.exists() else None) == content


def test_only_the_last_lines_of_a_long_history_are_parsed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    monkeypatch.setattr("lotr_tui.session.history.json.loads", parsed.append)
    (folder / "history.jsonl").write_bytes(b"\n" * 1_000_000)
    PromptHistory(max_entries=10)
    assert len(parsed) <= 40


@pytest.mark.parametrize("create", UNREADABLE_FILES)
def test_unreadable_session_is_refused(folder: Path, create: Callable[[Path], None]) -> None:
    path = folder / "sessions" / "s.jsonl"
    create(path)
    list_sessions()
    with pytest.raises(SessionError, match="cannot be read: "):
        load_session(path)
    with pytest.raises(SessionError, match="cannot be resumed"):
        SessionWriter.resume(path)


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_LINE_BYTES", 100, "a line has more than 100 bytes"),
        ("MAX_REPLIES", 1, "more than 1 replies"),
        ("MAX_TOKENS", 2, "or 2 tokens"),
    ],
)
def test_session_over_a_size_limit_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, message: str
) -> None:
    writer = SessionWriter("bundled")
    for reply_id in range(3):
        writer.save(saved_reply(reply_id))
    content = (folder / "sessions" / f"{writer.session.name}.jsonl").read_bytes()
    writer.close()
    monkeypatch.setattr(saved_session, "MAX_TOKENS", 6)
    assert len(parse_session("s", content + content).replies) == 3  # a reply that is saved twice counts once
    monkeypatch.setattr(saved_session, limit, value)
    with pytest.raises(InvalidInputError, match=message):
        parse_session("s", content)


def test_long_text_is_cut_between_words() -> None:
    """A line end is shown as five characters; a cut inside them would leave a part that is read as a word."""
    for num_lines in (2_000, 2_222, 2_500, 9_000):
        for first_line in ("", "a", "ab", "abc", "abcd"):
            text = newlines_to_marks(f"{first_line}\n" + "a\n" * num_lines)
            assert len(text) <= MAX_TEXT_CHARACTERS
            assert set(marks_to_newlines(text)[len(first_line) :]) <= {"\n", "a"}
    assert newlines_to_marks("x" * 30_000) == "x" * MAX_TEXT_CHARACTERS


# Files of an older release, with other field names


@pytest.mark.parametrize("old_file", SETTINGS_FILES, ids=lambda old_file: old_file.name)
def test_old_settings_are_reported_in_one_line_and_set_aside(folder: Path, old_file: HostileFile) -> None:
    path = folder / "settings.json"
    old_file.create(path)
    content = path.read_bytes()
    store = SettingsStore()
    assert "older lotr-tui" in store.notice or "unknown field 'way'" in store.notice
    assert len(store.notice.splitlines()) == 1
    assert store.update(pace=5.0) == ""
    assert (folder / "settings.json.damaged-1").read_bytes() == content


@pytest.mark.parametrize("old_file", CONFIGS, ids=lambda old_file: old_file.name)
def test_old_run_is_refused_in_one_line_and_kept(tmp_path: Path, old_file: HostileFile) -> None:
    path = write_run(tmp_path / "r") / CONFIG_FILE
    path.unlink()
    old_file.create(path)
    content = path.read_bytes()
    with pytest.raises(InvalidInputError, match="written by another version of lotr-tui") as caught:
        load_model(path.parent)
    assert len(str(caught.value).splitlines()) == 1
    assert path.read_bytes() == content


@pytest.mark.parametrize("old_file", SESSIONS, ids=lambda old_file: old_file.name)
@pytest.mark.parametrize("open_session", [load_session, SessionWriter.resume])
def test_old_session_is_refused_in_one_line_and_set_aside(
    folder: Path, old_file: HostileFile, open_session: Callable[[Path], object]
) -> None:
    path = folder / "sessions" / "s.jsonl"
    old_file.create(path)
    content = path.read_bytes()
    with pytest.raises(SessionError, match=r"older lotr-tui|neither a session nor a reply") as caught:
        open_session(path)
    assert len(str(caught.value).splitlines()) == 1
    assert (folder / "sessions" / "s.jsonl.damaged-1").read_bytes() == content


# Control characters


def test_console_of_a_training_prints_no_control_characters() -> None:
    """The prompt comes from the configuration, which may be untrusted; a warning contains paths."""
    formatter = ProgressFormatter(_Job())  # type: ignore[arg-type]
    diagnosed = Diagnosed(1, 1.0, "disk_space", ESCAPES, f"lotr-tui stop {ESCAPES}")
    for event in (Sampled(1, 1.0, ESCAPES, "the road", 0, 0.7), Warned(f"cannot write {ESCAPES}"), diagnosed):
        text = formatter.format(event)
        assert text is not None
        assert all(line.isprintable() for line in text.split("\n"))


class _Job:
    class config:  # noqa: N801
        class training:  # noqa: N801
            epochs = fine_tune_epochs = 1

    class dataset:  # noqa: N801
        class tokenizer:  # noqa: N801
            is_open = False


def test_exported_metrics_contain_no_control_characters(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    started = Started("r", ESCAPES, 99, 5, 100, 10, 40, ESCAPES, "", 151.0, 94.0)
    (run / METRICS_FILE).write_text(json.dumps(event_to_dict(started)) + "\n")
    (run / SAMPLES_FILE).write_text(json.dumps(event_to_dict(Sampled(1, 1.0, ESCAPES, f"a\n{ESCAPES}", 0, 0.7))) + "\n")
    for path in export_csv(run, tmp_path / "out"):
        assert all(line.isprintable() for line in path.read_bytes().decode().split("\n")), path


def test_console_file_of_a_background_training_is_not_written_through_a_link(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    (tmp_path / "precious").write_text("unchanged")
    (run / "console.txt").symlink_to(tmp_path / "precious")
    with pytest.raises(TrainingError, match=r"console\.txt cannot be written"):
        resume_in_background(run)
    assert (tmp_path / "precious").read_text() == "unchanged"


async def test_list_of_runs_shows_no_control_characters(make_app: Callable[..., LotrApp], tmp_path: Path) -> None:
    """The list shows the presets of the configurations, and the comparison shows the settings that differ."""
    for name, preset in (("r", "\x1b[2J"), ("s", "\x9b2J\u202e")):
        run = write_run(tmp_path / "runs" / name)
        config = json.loads((run / "config.json").read_text())
        config["preset"], config["data"]["corpus"] = preset, ESCAPES + name
        (run / "config.json").write_text(json.dumps(config))
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await app.push_screen(RunsScreen())
        await until(pilot, lambda: bool(app.screen.query_one("#runs", OptionList).option_count))
        await pilot.press("space", "down", "space", "d")
        await pilot.pause()
        lines = [line for widget in app.screen.query("*") for line in lines_of(widget).split("\n")]
        assert any("[2J" in line for line in lines)
        assert any("]0;title" in line for line in lines)
        assert [line for line in lines if not line.isprintable()] == []
