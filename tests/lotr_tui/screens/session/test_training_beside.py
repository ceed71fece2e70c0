"""A training beside the conversation: its models, its chart, and its saved epochs side by side."""

import json
import shutil
import threading

import pytest
from textual.widgets import OptionList

from engine.config import Config
from engine.errors import RunError
from engine.events import Evaluated, Finished, Sampled, Started, Step, event_to_dict
from engine.presets import PRESETS
from engine.runs.directory import METRICS_FILE, SAMPLES_FILE, epoch_weights_path
from engine.runs.loading import list_epoch_checkpoints
from engine.runs.locked_run import create_run, record_events
from engine.runs.metrics import RecordFollower
from lotr_tui.monitor import run_follower
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.inspect.comparison import SideBySideScreen
from lotr_tui.screens.session.run_chart import RunPerplexityChart
from lotr_tui.session.session_model import load_session_model
from lotr_tui.session.training_text import ModelChoice, load_model_choice
from lotr_tui.session.transcript import Note
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support import pilot as ui
from tests.support.app import VOCABULARY, FakeJob, finished, make_decoder, training_events
from tests.support.columns import note_text, until_columns_ended
from tests.support.files import write_run


def write_long_run(path, num_steps):
    """Write the metrics and samples of a run with `num_steps` steps, an evaluation at every third, and a sample."""
    path.mkdir(parents=True)
    rows = [Started(path.name, "tiny", 752_239, 879, 19_022, 2_227, num_steps, "cpu", "", 150.9, 90.8)]
    for number in range(1, num_steps + 1):
        rows.append(Step(number, number, 60 + number * 7919 % 1009 / 100, 0.006, 0.2, 9000.0, number, 0.0))
        if number % 3 == 0:
            valid = 70 + 80 * (1 - number / num_steps) ** 2
            rows.append(Evaluated(number, number, valid, is_best=True, seconds=number))
    rows.append(Finished("done", path.name, num_steps, 70.0, 72.3, num_steps))
    sample = Sampled(num_steps, num_steps, "bilbo baggins is", "a friend of mine", seed=0, temperature=0.7)
    for name, written in ((METRICS_FILE, rows), (SAMPLES_FILE, [sample])):
        (path / name).write_text("".join(json.dumps(event_to_dict(event)) + "\n" for event in written))


def status(app):
    return ui.text_of(app.screen.query_one("#status"))


def noted(app, text):
    return any(text in note for note in ui.entries(app, Note))


async def choose_run(pilot, name):
    """Open the list of runs, and choose the only one with a name."""
    await pilot.press("ctrl+o")
    await ui.until(pilot, lambda: ui.screen_name(pilot.app) == "RunsScreen" and pilot.app.screen.query(OptionList))
    runs = pilot.app.screen.query_one(OptionList)
    await ui.until(pilot, lambda: runs.option_count)
    await pilot.press("slash", *name, "enter")
    await ui.until(pilot, lambda: runs.has_focus and runs.option_count == 1)
    await pilot.press("enter")
    await ui.until(pilot, lambda: ui.screen_name(pilot.app) == "SessionScreen")


async def test_session_uses_each_model_of_a_training_and_its_dashboard_leads_back(make_app, use_job):
    events = training_events()
    job = use_job(FakeJob([*events, finished(make_decoder(99))]).release(3))
    async with make_app().run_test(size=(160, 45)) as pilot:
        app = pilot.app
        session = app.screen
        await pilot.press("ctrl+t")
        await ui.until(pilot, lambda: ui.screen_name(app) == "NewTrainingDialog")
        await pilot.press("enter")
        await ui.until(pilot, lambda: "learning · epoch 0.0" in status(app))
        first = next(event for event in events if isinstance(event, Evaluated)).model
        assert session.session_model.model is first
        ui.set_field(app, "max_tokens", "5")
        assert (await ui.reply_to(pilot)).session_model.model is first
        await pilot.press("ctrl+t")
        await ui.until(pilot, lambda: ui.screen_name(app) == "DashboardScreen")
        await pilot.press("escape")
        await ui.until(pilot, lambda: app.screen is session)
        job.release(100)
        await ui.until(pilot, lambda: "valid 72.5" in status(app) and noted(app, "training finished"))
        assert session.session_model.name == "tiny-test"
        await pilot.press("ctrl+t")
        await ui.until(pilot, lambda: ui.screen_name(app) == "DashboardScreen")
        await choose_run(pilot, "lstm")
        assert app.screen_stack == [session]  # a second session would be one more to leave
        await ui.until(pilot, lambda: noted(app, "now using lstm"))


async def test_failed_training_is_reported_and_the_session_and_its_chart_stay(make_app, use_job):
    use_job(FakeJob(training_events()[:2], failure=RuntimeError("out of [memory]")).release())
    async with make_app().run_test(size=(160, 45)) as pilot:
        app, view = pilot.app, TrainingView()
        for event in training_events():
            view.apply(event)
        await ui.until(pilot, lambda: app.screen.query(RunPerplexityChart))
        app.screen.query_one(RunPerplexityChart).show(view)
        app.screen.start_training(PRESETS["tiny"])
        await ui.until(pilot, lambda: noted(app, "out of [memory]"))
        assert not app.is_training
        assert "valid 72.5" in app.screen.query_one(RunPerplexityChart).render_line(0).text
        assert (await ui.reply_to(pilot)).tokens


# The chart of a run, which is read in a thread

NUM_UPDATES = 3000
"""Number of updates; the record then has about ten chunks."""


@pytest.fixture
def long_run(tmp_path):
    path = write_run(tmp_path / "runs" / "long")
    write_long_run(tmp_path / "record", NUM_UPDATES)
    for name in (METRICS_FILE, SAMPLES_FILE):
        shutil.move(tmp_path / "record" / name, path / name)
    return path


@pytest.fixture
def gate(long_run, monkeypatch):
    """Semaphore that lets the follower of the long run read one chunk per release, of metrics and samples in turn."""
    opened = threading.Semaphore(0)

    class GatedFollower(RecordFollower):
        def read(self, max_seconds):
            assert threading.current_thread() is not threading.main_thread()
            if self.path.parent == long_run:
                opened.acquire()
            return super().read(0)

    monkeypatch.setattr(run_follower, "RecordFollower", GatedFollower)
    yield opened
    opened.release(1_000_000)  # lets waiting threads end


async def test_typing_works_while_a_long_run_is_read_and_a_damaged_model_is_refused(make_app, long_run, gate):
    async with make_app().run_test(size=(160, 45)) as pilot:
        app = pilot.app

        def legend():
            return app.screen.query_one(RunPerplexityChart).render_line(0).text

        await choose_run(pilot, "long")
        await ui.until(pilot, lambda: "long" in status(app))
        gate.release(2)  # the first chunk
        await ui.until(pilot, lambda: "reading the run" in legend() and "valid" in legend())
        await pilot.press(*"the")  # the metrics are not read yet
        assert app.screen.query_one("#prompt", PromptInput).value == "the"
        chart, complete = app.screen.query_one(RunPerplexityChart), TrainingView.from_run(long_run)
        assert 0 < len(chart.view.steps) < NUM_UPDATES / 2
        gate.release(1000)
        await ui.until(pilot, lambda: "reading" not in legend())
        assert (chart.view.steps, chart.view.evaluations) == (complete.steps, complete.evaluations)
        assert "valid 70.0" in legend()
        (long_run / "model.safetensors").write_bytes(b"no")
        await choose_run(pilot, "long")
        await ui.until(pilot, lambda: "model.safetensors" in ui.notices(app))


# Saved epochs

RUN = "tiny-test"
EVENTS_BEFORE, EVENTS_OF_EPOCH = 4, 6
"""Numbers of `training_events` before the first epoch and in each epoch."""


class RecordedJob(FakeJob):
    """A `FakeJob` whose events are recorded in a run directory."""

    def __init__(self, folder, epochs):
        super().__init__([*training_events(epochs), finished(make_decoder(epochs))])
        changes = {"embedding_size": 12, "hidden_size": 12, "punctuation": False, "corpus": str(folder / "away.csv")}
        self.recorded = create_run(Config("tiny").with_values(**changes), VOCABULARY, RUN, folder)

    def events(self, cancelled, take_problems=lambda: ()):
        return record_events(self.recorded, super().events(cancelled))


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "runs"


@pytest.fixture
def trained(folder):
    job = RecordedJob(folder, 5).release()
    list(job.events(lambda: True))
    return job.recorded.path


async def open_side_by_side(pilot):
    """Type a prompt and open the comparison; the default model replaces Kneser-Ney, because there is no corpus."""
    await pilot.press(*"the tower", "ctrl+y")
    screen = pilot.app.screen
    assert isinstance(screen, SideBySideScreen)
    await ui.until(pilot, lambda: "away.csv" in note_text(screen))
    await until_columns_ended(pilot, screen)
    return screen


async def offered_models(pilot):
    """Open the list of models for a column, and return its rows."""
    await pilot.press("right", "x", "a")
    assert ui.screen_name(pilot.app) == "ModelChoiceDialog"
    return [" ".join(str(option.prompt).split()) for option in pilot.app.screen.query_one(OptionList).options]


async def test_epochs_of_a_running_training_are_offered_as_they_are_saved(make_app, folder, use_job):
    job = use_job(RecordedJob(folder, 5))
    async with make_app().run_test(size=(80, 24)) as pilot:
        session = pilot.app.screen
        session.start_training(PRESETS["tiny"])
        job.release(EVENTS_BEFORE + EVENTS_OF_EPOCH)
        await ui.until(pilot, lambda: "epoch 1.0" in session.session_model.description)
        screen = await open_side_by_side(pilot)
        assert screen.slots[0].output.title == RUN
        assert [row for row in await offered_models(pilot) if "@" in row] == ["tiny-test@1 epoch 1 valid 130.0"]
        await pilot.press("escape")
        job.release(3 * EVENTS_OF_EPOCH)
        await ui.until(pilot, lambda: len(list_epoch_checkpoints(job.recorded.path)) == 3)
        rows = await offered_models(pilot)
        assert [row.split()[0] for row in rows if "@" in row] == ["tiny-test@1", "tiny-test@2", "tiny-test@4"]
        epoch_weights_path(job.recorded.path, 1).unlink()
        await pilot.press("down", "down", "enter")
        await ui.until(pilot, lambda: "did not keep epoch 1; it kept 2, 4" in note_text(screen))
        assert len(screen.slots) == 1
        assert pilot.app.is_training


def test_chosen_epoch_loads_its_weights_and_several_form_an_ensemble(folder, trained):
    session_model = load_model_choice(ModelChoice("run", str(trained), 4), folder)
    expected = make_decoder(4).weights
    assert all((session_model.model.weights[name] == expected[name]).all() for name in expected)
    assert session_model.name == "tiny-test@4"
    assert load_session_model([f"{RUN}@2"], folder).description == "epoch 2 · valid 115.0 (Kneser-Ney 90.8)"
    with pytest.raises(RunError, match="did not keep epoch 3"):
        load_model_choice(ModelChoice("run", str(trained), 3), folder)
    ensemble = load_session_model([f"{RUN}@1", f"{RUN}@4"], folder)
    assert ensemble.description == "0.50 tiny-test@1 + 0.50 tiny-test@4"
