"""What is no file of ours, or far too large, before what reads it in the terminal; and what it would send there."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.widgets import OptionList

from engine.errors import TrainingError, UnusableInput
from engine.events import Sampled, Started, Warned, to_record
from engine.runs.store import METRICS, SAMPLES
from lotr_tui.app import LotrApp
from lotr_tui.cli.console import _PlainLines
from lotr_tui.monitor.background import hand_over
from lotr_tui.monitor.export import export_csv
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.text.text_input import MOST_CHARACTERS, one_line, with_line_ends
from lotr_tui.session import saved_session
from lotr_tui.session.history import History, HistoryError
from lotr_tui.session.saved_session import read_session
from lotr_tui.session.session_file import SessionError, SessionWriter, load_session, saved_sessions
from lotr_tui.session.settings import KeptSettings
from tests.conftest import write_run
from tests.lotr_tui.screens.session.test_session_screen import until
from tests.lotr_tui.session.test_saved_session import node

ESCAPES = "\x1b]0;title\x07\x9b2J\u202e"


def pipe(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 50_000_000_000)


KINDS: list[Callable[[Path], None]] = [pipe, zeros, sparse]


@pytest.fixture
def folder(home: Path) -> Path:
    (home / "sessions").mkdir(parents=True)
    return home


@pytest.mark.parametrize("put", KINDS)
def test_settings_have_their_defaults(folder: Path, put: Callable[[Path], None]) -> None:
    put(folder / "settings.json")
    kept = KeptSettings()
    assert "cannot be read: it is" in kept.notice
    assert "cannot be read: it is" in kept.keep(pace=5.0)  # what was not read is not overwritten
    assert kept.current.pace == 5.0


@pytest.mark.parametrize("put", [pipe, zeros])
@pytest.mark.parametrize("name", ["history.jsonl", "history.lock"])
def test_prompts_are_not_kept_and_nobody_waits(folder: Path, name: str, put: Callable[[Path], None]) -> None:
    put(folder / name)
    history = History()
    with pytest.raises(HistoryError, match="prompts are not kept"):
        history.add("the road")
    assert history.entries == ["the road"]


def test_prompts_may_be_kept_elsewhere(folder: Path) -> None:
    (folder / "history.jsonl").symlink_to(folder / "elsewhere")
    History().add("the road")
    assert (folder / "elsewhere").read_text() == '"the road"\n'


def test_of_very_many_prompts_the_last_are_looked_at(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[bytes] = []
    monkeypatch.setattr("lotr_tui.session.history.json.loads", looked.append)
    (folder / "history.jsonl").write_bytes(b"\n" * 1_000_000)
    History(most=10)
    assert len(looked) <= 40


@pytest.mark.parametrize("put", KINDS)
def test_a_session_is_refused(folder: Path, put: Callable[[Path], None]) -> None:
    path = folder / "sessions" / "s.jsonl"
    put(path)
    saved_sessions()
    with pytest.raises(SessionError, match="cannot be read: it is"):
        load_session(path)
    with pytest.raises(SessionError, match="cannot be resumed"):
        SessionWriter.resume(path)


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("MOST_OF_A_LINE", 100, "a line has more than 100 bytes"),
        ("MOST_NODES", 1, "more than 1 replies"),
        ("MOST_WORDS", 2, "or 2 words"),
    ],
)
def test_a_session_of_far_too_much_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int, said: str
) -> None:
    writer = SessionWriter("bundled")
    for number in range(3):
        writer.keep(node(number))
    content = (folder / "sessions" / f"{writer.session.name}.jsonl").read_bytes()
    writer.close()
    monkeypatch.setattr(saved_session, "MOST_WORDS", 6)
    assert len(read_session("s", content + content).nodes) == 3  # a node that is told again counts once
    monkeypatch.setattr(saved_session, limit, value)
    with pytest.raises(UnusableInput, match=said):
        read_session("s", content)


def test_a_text_of_very_many_lines_is_cut_between_words() -> None:
    """On one line each line end is five characters; cut in one of them, it was read as the word "eos"."""
    for lines in (2_000, 2_222, 2_500, 9_000):
        for first in ("", "a", "ab", "abc", "abcd"):
            line = one_line(f"{first}\n" + "a\n" * lines)
            assert len(line) <= MOST_CHARACTERS
            assert set(with_line_ends(line)[len(first) :]) <= {"\n", "a"}
    assert one_line("x" * 30_000) == "x" * MOST_CHARACTERS


# --- what goes to the terminal -----------------------------------------------------------------------------------


def test_a_plain_training_prints_nothing_but_text() -> None:
    """The prompt is the configuration's, which may be a stranger's; a warning names paths."""
    lines = _PlainLines(_Job())  # type: ignore[arg-type]
    for event in (Sampled(1, 1.0, ESCAPES, "the road", 0, 0.7), Warned(f"cannot write {ESCAPES}")):
        said = lines.of(event)
        assert said is not None
        assert said.isprintable()


class _Job:
    class config:  # noqa: N801
        class training:  # noqa: N801
            epochs = fine_tune_epochs = 1


def test_an_exported_record_has_nothing_but_text(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    started = Started("r", ESCAPES, 99, 5, 100, 10, 40, ESCAPES, "", 151.0, 94.0)
    (run / METRICS).write_text(json.dumps(to_record(started)) + "\n")
    (run / SAMPLES).write_text(json.dumps(to_record(Sampled(1, 1.0, ESCAPES, f"a\n{ESCAPES}", 0, 0.7))) + "\n")
    for path in export_csv(run, tmp_path / "out"):
        assert all(line.isprintable() for line in path.read_bytes().decode().split("\r\n")), path


def test_the_console_of_a_training_in_the_background_leads_nowhere_else(tmp_path: Path) -> None:
    run = write_run(tmp_path / "r")
    (tmp_path / "precious").write_text("as it was")
    (run / "console.txt").symlink_to(tmp_path / "precious")
    with pytest.raises(TrainingError, match=r"console\.txt cannot be written"):
        hand_over(run)
    assert (tmp_path / "precious").read_text() == "as it was"


async def test_the_list_of_runs_shows_nothing_but_text(make_app: Callable[..., LotrApp], tmp_path: Path) -> None:
    """Of the configurations: their presets in the list, and what differs."""
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
        lines = [strip.text for strip in app.screen._compositor.render_strips()]
        assert any("[2J" in line for line in lines)
        assert [line for line in lines if not line.isprintable()] == []
