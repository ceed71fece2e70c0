"""The curve of a run that is opened in the session: read in a thread, piece by piece, while one goes on typing."""

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from engine.runs import store
from engine.runs.metrics import AT_ONCE, Follower, Piece
from engine.runs.store import METRICS, SAMPLES, LoadedModel
from lotr_tui.app import LotrApp
from lotr_tui.bench.interface.attach import write_long_run
from lotr_tui.monitor import followed_run
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.runs import open_run
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session import run_curve
from lotr_tui.screens.session.run_curve import RunCurve
from lotr_tui.screens.session.screen import PlayScreen
from lotr_tui.widgets.prompt import Prompt
from tests.conftest import write_run
from tests.lotr_tui.screens.session.test_session_screen import until

MakeApp = Callable[..., LotrApp]
REPORTS = 3000
"""Some ten pieces, as short as they can be."""


@pytest.fixture
def long_run(tmp_path: Path) -> Path:
    """With a model, and a record of several pieces."""
    path = write_run(tmp_path / "runs" / "long")
    write_long_run(tmp_path / "record", REPORTS)
    for name in (METRICS, SAMPLES):
        shutil.move(tmp_path / "record" / name, path / name)
    assert (path / METRICS).stat().st_size > 5 * AT_ONCE
    return path


@pytest.fixture
def gate(long_run: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Semaphore]:
    """Opened once, it lets the follower of the long run read one piece, of metrics and samples in turn."""
    opened = threading.Semaphore(0)

    class Held(Follower):
        def more(self, seconds: float) -> Piece:
            assert threading.current_thread() is not threading.main_thread()
            if self.path.parent == long_run:
                opened.acquire()
            return super().more(0)

    monkeypatch.setattr(followed_run, "Follower", Held)
    monkeypatch.setattr(run_curve, "SHOW_SECONDS", 0)
    yield opened
    opened.release(1_000_000)  # whoever still waits


def curve(pilot: Pilot[None]) -> RunCurve:
    return pilot.app.screen.query_one(RunCurve)


def legend(pilot: Pilot[None]) -> str:
    return curve(pilot).render_line(0).text


async def test_one_types_while_a_long_run_is_opened(
    make_app: MakeApp, long_run: Path, gate: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads, load_named = threading.Event(), store.load_named

    def load(name: str, folder: Path) -> LoadedModel:
        assert threading.current_thread() is not threading.main_thread()
        loads.wait()
        return load_named(name, folder)

    monkeypatch.setattr(store, "load_named", load)
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.query(OptionList).first().options)
        await pilot.press("slash", *"long", "enter", "enter")
        await until(pilot, lambda: isinstance(app.screen, PlayScreen))
        status, prompt = app.screen.query_one("#status"), app.screen.query_one("#prompt", Prompt)
        await pilot.press(*"the")  # its model is not loaded yet
        assert prompt.value == "the"
        assert "long" not in str(status.render())  # type: ignore[attr-defined]
        loads.set()
        await until(pilot, lambda: "long" in str(status.render()))  # type: ignore[attr-defined]

        gate.release(2)  # its first piece
        await until(pilot, lambda: "reading the record" in legend(pilot) and "valid" in legend(pilot))
        await pilot.press(*" ro")  # and its record is not read yet
        assert prompt.value == "the ro"
        assert 0 < len(curve(pilot)._view.steps) < REPORTS / 2
        gate.release(1000)
        await until(pilot, lambda: "reading" not in legend(pilot))
        whole = TrainingView.of_run(long_run)
        assert curve(pilot)._view.steps == whole.steps
        assert curve(pilot)._view.evaluations == whole.evaluations
        assert "valid 70.0" in legend(pilot)
        assert curve(pilot)._looks is None  # no timer lives on


async def test_what_is_wanted_last_is_shown(make_app: MakeApp, long_run: Path, gate: threading.Semaphore) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.pause(0.1)
        curve(pilot).read(long_run)
        gate.release(2)
        await until(pilot, lambda: "reading the record" in legend(pilot))
        other = TrainingView.of_run(long_run)
        curve(pilot).show(other)
        gate.release(1000)
        await pilot.pause(0.2)
        assert curve(pilot)._view is other
        assert "reading" not in legend(pilot)


async def test_a_run_without_a_record_takes_the_curve_away(make_app: MakeApp, long_run: Path) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.pause(0.1)
        curve(pilot).read(long_run)
        await until(pilot, lambda: "valid 70.0" in legend(pilot) and "reading" not in legend(pilot))
        (long_run / METRICS).unlink()
        curve(pilot).read(long_run)
        await until(pilot, lambda: not legend(pilot).strip())


async def test_a_run_that_cannot_be_loaded_is_told(make_app: MakeApp, long_run: Path) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        (long_run / "model.safetensors").write_bytes(b"no")
        open_run.load_run(app.screen, str(long_run), lambda _: pytest.fail("there is no model"))  # type: ignore[arg-type]
        await until(pilot, lambda: any("model.safetensors" in notice.message for notice in app._notifications))
