"""A training beside the conversation: its models, its chart, and its saved epochs side by side."""

import pytest
from textual.widgets import OptionList

from engine.config import Config
from engine.errors import RunError
from engine.events import Evaluated, Sampled
from engine.presets import PRESETS
from engine.runs.directory import EPOCHS_DIR
from engine.runs.loading import list_epoch_checkpoints
from engine.runs.locked_run import create_run, record_events
from engine.storage.tensor_file import to_float32, to_int8
from lotr_tui.screens.base import ONE_TRAINING
from lotr_tui.screens.inspect.comparison import SideBySideScreen
from lotr_tui.session.comparison import ModelChoice, load_model_choice
from lotr_tui.session.session_model import load_session_model
from lotr_tui.session.transcript import Note
from lotr_tui.widgets.charts import PerplexityChart
from lotr_tui.widgets.screen_lines import HelpLine
from tests.support import pilot as ui
from tests.support.app import VOCABULARY, FakeJob, finished, make_decoder, training_events
from tests.support.columns import note_text, until_columns_ended


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


def help_line(app):
    return ui.lines_of(app.screen.query_one(HelpLine))


async def test_a_training_leaves_the_conversation_its_model_and_offers_each_new_one(opened, use_job):
    events = training_events()
    job = use_job(FakeJob([*events, finished(make_decoder(99))]).release(4))
    async with opened() as (pilot, app):
        session = app.screen
        own = (await ui.reply_to(pilot)).session_model
        await pilot.press("ctrl+t")
        await ui.until(pilot, lambda: ui.screen_name(app) == "NewTrainingDialog")
        await pilot.press("enter")
        await ui.until(pilot, lambda: app.state.training_view.evaluations)
        assert "talk to it" not in help_line(app)  # a model that has learned nothing
        job.release(5)
        await ui.until(pilot, lambda: "epoch 1: talk to it · enter" in help_line(app))
        assert (await ui.reply_to(pilot)).session_model is own
        assert app.screen.query_one("#training").region.area
        await pilot.press("enter")
        await ui.until(pilot, lambda: "learning · epoch 1.0" in status(app))
        first = [event for event in events if isinstance(event, Evaluated)][1].model
        ui.set_field(app, "max_tokens", "5")
        assert (await ui.reply_to(pilot)).session_model.model is first
        await pilot.press("ctrl+t")
        await ui.until(pilot, lambda: ui.screen_name(app) == "DashboardScreen")
        await pilot.press("escape")
        await ui.until(pilot, lambda: app.screen is session)
        job.release(100)
        await ui.until(pilot, lambda: "tiny-test is trained: talk to it · enter" in help_line(app))
        assert "epoch 1.0" in status(app)
        await ui.press_letter(pilot, "p")
        await ui.until(pilot, lambda: "valid 72.5" in status(app) and noted(app, "now talking to tiny-test"))
        await choose_run(pilot, "lstm")
        assert app.screen_stack == [session]
        await ui.until(pilot, lambda: noted(app, "now using lstm"))


async def test_failed_training_is_reported_and_the_session_stays(opened, use_job):
    use_job(FakeJob(training_events()[:2], failure=RuntimeError("out of [memory]")).release())
    async with opened() as (pilot, app):
        await ui.until(pilot, lambda: app.screen.query(PerplexityChart))
        app.screen.training.start(PRESETS["tiny"])
        await ui.until(pilot, lambda: noted(app, "out of [memory]"))
        assert not app.state.is_training
        assert (await ui.reply_to(pilot)).tokens


def legend(app):
    return app.screen.query_one(PerplexityChart).render_line(0).text


async def choose_training(pilot, name):
    """Choose one of the trainings that ctrl+t lists, look at its dashboard, and close it; return the list."""
    session = pilot.app.screen
    await pilot.press("ctrl+t")
    await ui.until(pilot, lambda: ui.screen_name(pilot.app) == "Dialog")
    texts = [ui.text_of(each) for each in pilot.app.screen.query(".dialog-text")]
    assert texts == [ONE_TRAINING] * pilot.app.state.is_training
    rows = [str(option.prompt).split(" · ")[0] for option in pilot.app.screen.query_one(OptionList).options]
    await pilot.press(*["down"] * rows.index(name), "enter")
    await ui.until(pilot, lambda: ui.screen_name(pilot.app) == "DashboardScreen" and name in status(pilot.app))
    await pilot.press("escape")
    await ui.until(pilot, lambda: pilot.app.screen is session)
    return rows


async def test_of_two_trainings_a_list_chooses_the_one_that_all_speak_of(opened, folder, use_job):
    """One is of this process, the other one of another process, as its lock says."""
    recorded = RecordedJob(folder, 3, "other").recorded
    recording = record_events(recorded, iter([*training_events(3), finished(make_decoder(3))]))
    for event in recording:
        if isinstance(event, Sampled) and event.epoch == 1:
            break
    job = use_job(FakeJob([*training_events(5), finished(make_decoder(99))]).release(4))
    async with opened() as (pilot, app):
        own = (await ui.reply_to(pilot)).session_model
        assert "training" not in status(app)
        app.screen.training.start(PRESETS["tiny"])
        await ui.until(pilot, lambda: "training epoch 0.0/5 · 152.5" in status(app) and "valid 152.5" in legend(app))
        assert await choose_training(pilot, "other") == ["tiny-test", "other"]
        await ui.until(
            pilot, lambda: "other training epoch 1.0/3 · 130.0" in status(app) and "valid 130.0" in legend(app)
        )
        assert "other, epoch 1: talk to it · enter" in help_line(app)
        job.release(12)
        await ui.until(pilot, lambda: len(app.state.training_view.evaluations) == 3)
        assert "other training epoch 1.0/3 · 130.0" in status(app)
        assert "valid 130.0" in legend(app)
        assert (await ui.reply_to(pilot)).session_model is own
        await pilot.press("enter")
        await ui.until(pilot, lambda: noted(app, "now using other"))
        await choose_training(pilot, "tiny-test")
        assert "tiny-test training epoch 2.0/5 · 115.0" in status(app)
        assert "valid 115.0" in legend(app)
        await choose_training(pilot, "other")
        list(recording)
        await ui.until(pilot, lambda: "other is trained: talk to it · enter" in help_line(app))
        await pilot.press("ctrl+t")
        await ui.until(pilot, lambda: ui.screen_name(app) == "DashboardScreen" and "tiny-test" in status(app))


async def test_a_new_training_is_in_the_list_beside_one_of_another_process(make_app, folder):
    recorded = RecordedJob(folder, 3, "other").recorded
    async with make_app().run_test(size=(160, 45)) as pilot:
        await ui.until(pilot, lambda: pilot.app.screen.query(PerplexityChart))
        await pilot.press("ctrl+t")
        await ui.until(pilot, lambda: ui.screen_name(pilot.app) == "Dialog")
        await pilot.press("a")
        await ui.until(pilot, lambda: ui.screen_name(pilot.app) == "NewTrainingDialog")
    recorded.lock.close()


# Saved epochs

RUN = "tiny-test"
EVENTS_BEFORE, EVENTS_OF_EPOCH = 4, 6  # numbers of `training_events` before the first epoch and in each epoch


class RecordedJob(FakeJob):
    """A `FakeJob` whose events are recorded in a run directory."""

    def __init__(self, folder, epochs, name=RUN):
        super().__init__([*training_events(epochs), finished(make_decoder(epochs))])
        changes = {"embedding_size": 12, "hidden_size": 12, "punctuation": False, "corpus": str(folder / "away.csv")}
        self.recorded = create_run(Config("tiny").with_values(**changes), VOCABULARY, name, folder)

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
    await pilot.press(*"the tower")
    await ui.press_letter(pilot, "c")
    screen = pilot.app.screen
    assert isinstance(screen, SideBySideScreen)
    await ui.until(pilot, lambda: "Kneser-Ney: the training text" in note_text(screen))
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
        assert ui.text_of(session.query_one("#panes")).split() == ["[conversation]", "next", "word"]
        session.training.start(PRESETS["tiny"])
        job.release(EVENTS_BEFORE + EVENTS_OF_EPOCH)
        await ui.until(pilot, lambda: "epoch 1: talk to it" in help_line(pilot.app))
        await pilot.press("enter")
        await ui.until(pilot, lambda: "epoch 1.0" in session.slot.session_model.description)
        assert "training" in ui.text_of(session.query_one("#panes"))
        screen = await open_side_by_side(pilot)
        assert screen.slots[0].title == RUN
        assert [row for row in await offered_models(pilot) if "@" in row] == ["tiny-test@1 epoch 1 valid 130.0"]
        await pilot.press("escape")
        job.release(3 * EVENTS_OF_EPOCH)
        await ui.until(pilot, lambda: len(list_epoch_checkpoints(job.recorded.path)) == 2)
        rows = await offered_models(pilot)
        assert [row.split()[0] for row in rows if "@" in row] == ["tiny-test@1", "tiny-test@4"]
        (job.recorded.path / EPOCHS_DIR / "1.safetensors").unlink()
        await pilot.press("down", "enter")
        await ui.until(pilot, lambda: "did not keep epoch 1; it kept 4" in note_text(screen))
        assert len(screen.slots) == 1
        assert pilot.app.state.is_training


def test_chosen_epoch_loads_its_weights_and_several_form_an_ensemble(folder, trained):
    session_model = load_model_choice(ModelChoice("run", str(trained), 4), folder)
    expected = {name: to_float32(to_int8(weight)) for name, weight in make_decoder(4).weights.items()}
    assert all((session_model.model.weights[name] == expected[name]).all() for name in expected)
    assert session_model.name == "tiny-test@4"
    assert load_session_model([f"{RUN}@1"], folder).description == "epoch 1 · valid 130.0 (Kneser-Ney 90.8)"
    with pytest.raises(RunError, match="did not keep epoch 3"):
        load_model_choice(ModelChoice("run", str(trained), 3), folder)
    ensemble = load_session_model([f"{RUN}@1", f"{RUN}@4"], folder)
    assert ensemble.description == "0.50 tiny-test@1 + 0.50 tiny-test@4"
