"""Tests of the perplexity chart beside the conversation, which reads a run in a thread."""

import shutil
import threading

import pytest
from textual.widgets import OptionList

from engine.runs import loading
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE
from engine.runs.loading import load_model_by_name
from engine.runs.metrics import READ_CHUNK_BYTES, RecordFollower
from lotr_tui.monitor import run_follower
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.runs import open_run
from lotr_tui.screens.runs.screen import RunsScreen
from lotr_tui.screens.session import run_chart
from lotr_tui.screens.session.run_chart import RunPerplexityChart
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.files import write_run
from tests.support.long_run import write_long_run
from tests.support.pilot import notices, text_of, until

NUM_UPDATES = 3000
"""Number of updates; the record then has about ten chunks."""


@pytest.fixture
def long_run(tmp_path):
    """A run with a model and metrics of several chunks."""
    path = write_run(tmp_path / "runs" / "long")
    write_long_run(tmp_path / "record", NUM_UPDATES)
    for name in (METRICS_FILE, SAMPLES_FILE):
        shutil.move(tmp_path / "record" / name, path / name)
    assert (path / METRICS_FILE).stat().st_size > 5 * READ_CHUNK_BYTES
    return path


@pytest.fixture
def gate(long_run, monkeypatch):
    """Semaphore that lets the follower of the long run read one chunk per release, of metrics and samples in turn."""
    opened = threading.Semaphore(0)

    class GatedFollower(RecordFollower):
        def read_batch(self, max_seconds):
            assert threading.current_thread() is not threading.main_thread()
            if self.path.parent == long_run:
                opened.acquire()
            return super().read_batch(0)

    monkeypatch.setattr(run_follower, "RecordFollower", GatedFollower)
    monkeypatch.setattr(run_chart, "REDRAW_INTERVAL", 0)
    yield opened
    opened.release(1_000_000)  # lets waiting threads end


def chart(pilot):
    return pilot.app.screen.query_one(RunPerplexityChart)


def legend(pilot):
    return chart(pilot).render_line(0).text


async def test_typing_works_while_a_long_run_is_read(make_app, long_run, gate, monkeypatch):
    may_load = threading.Event()

    def load(name, folder):
        assert threading.current_thread() is not threading.main_thread()
        may_load.wait()
        return load_model_by_name(name, folder)

    monkeypatch.setattr(loading, "load_model_by_name", load)
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.press("ctrl+o")
        await until(pilot, lambda: isinstance(app.screen, RunsScreen) and app.screen.query(OptionList).first().options)
        await pilot.press("slash", *"long", "enter", "enter")
        await until(pilot, lambda: isinstance(app.screen, SessionScreen))
        status, prompt = app.screen.query_one("#status"), app.screen.query_one("#prompt", PromptInput)
        await pilot.press(*"the")  # the model is not loaded yet
        assert prompt.value == "the"
        assert "long" not in text_of(status)
        may_load.set()
        await until(pilot, lambda: "long" in text_of(status))

        gate.release(2)  # the first chunk
        await until(pilot, lambda: "reading the run" in legend(pilot) and "valid" in legend(pilot))
        await pilot.press(*" ro")  # the metrics are not read yet
        assert prompt.value == "the ro"
        assert 0 < len(chart(pilot).view.steps) < NUM_UPDATES / 2
        gate.release(1000)
        await until(pilot, lambda: "reading" not in legend(pilot))
        complete = TrainingView.from_run(long_run)
        assert chart(pilot).view.steps == complete.steps
        assert chart(pilot).view.evaluations == complete.evaluations
        assert "valid 70.0" in legend(pilot)
        assert not chart(pilot).is_loading


async def test_last_requested_chart_wins(make_app, long_run, gate):
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.pause(0.1)
        chart(pilot).load_run(long_run)
        gate.release(2)
        await until(pilot, lambda: "reading the run" in legend(pilot))
        other = TrainingView.from_run(long_run)
        chart(pilot).show(other)
        gate.release(1000)
        await pilot.pause(0.2)
        assert chart(pilot).view is other
        assert "reading" not in legend(pilot)


async def test_run_without_metrics_clears_the_chart(make_app, long_run):
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await pilot.pause(0.1)
        chart(pilot).load_run(long_run)
        await until(pilot, lambda: "valid 70.0" in legend(pilot) and "reading" not in legend(pilot))
        (long_run / METRICS_FILE).unlink()
        chart(pilot).load_run(long_run)
        await until(pilot, lambda: "valid" not in legend(pilot))


async def test_unreadable_run_is_reported(make_app, long_run):
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        (long_run / "model.safetensors").write_bytes(b"no")
        open_run.load_run(app.screen, str(long_run), lambda _: pytest.fail("there is no model"))
        await until(pilot, lambda: "model.safetensors" in notices(app))
