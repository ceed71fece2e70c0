"""Tests of saved epochs: used by name, and compared side by side during and after a training."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from engine.config import Config
from engine.errors import RunError
from engine.events import TrainingEvent
from engine.generation.generate import TokenEvent, generate
from engine.generation.prompt import encode_prompt
from engine.models.numpy_lstm import NumpyLSTM
from engine.presets import PRESETS
from engine.runs.directory import epoch_weights_path
from engine.runs.loading import list_epoch_checkpoints
from engine.runs.locked_run import create_run
from engine.runs.writer import record_events
from lotr_tui.screens.comparison.model_dialog import ModelChoiceDialog
from lotr_tui.screens.comparison.side_by_side import SideBySideScreen
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.session.baselines import ModelChoice, load_model_choice
from lotr_tui.session.session_model import load_session_model
from tests.support.app import VOCABULARY, FakeJob, UseJob, finished, make_decoder, training_events
from tests.support.columns import SIZES, column_lines, columns_text, generated_words, note_text, until_columns_ended
from tests.support.pilot import MakeApp, until

RUN = "tiny-test"
EVENTS_BEFORE, EVENTS_OF_EPOCH = 4, 6
"""Numbers of `training_events` before the first epoch and in each epoch."""


class RecordedJob(FakeJob):
    """A `FakeJob` whose events are recorded in a run directory."""

    def __init__(self, folder: Path, epochs: int) -> None:
        super().__init__([*training_events(epochs), finished(make_decoder(epochs))])
        config = Config("tiny").with_values(
            embedding_size=12, hidden_size=12, punctuation=False, corpus=str(folder / "away.csv")
        )
        self.recorded = create_run(config, VOCABULARY, RUN, folder)

    def events(
        self, cancelled: Callable[[], bool], take_problems: Callable[[], Sequence[str]] = lambda: ()
    ) -> Iterator[TrainingEvent]:
        return record_events(self.recorded, super().events(cancelled))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def trained(folder: Path) -> Path:
    """A run of five epochs, the last one the best."""
    job = RecordedJob(folder, 5).release()
    list(job.events(lambda: True))
    return job.recorded.path


async def open_side_by_side(pilot: Pilot[None]) -> SideBySideScreen:
    """Type a prompt and open the comparison; its Kneser-Ney column disappears because there is no corpus."""
    await pilot.press(*"the tower", "ctrl+y")
    screen = pilot.app.screen
    assert isinstance(screen, SideBySideScreen)
    await until(pilot, lambda: "away.csv" in note_text(screen))
    await until_columns_ended(pilot, screen)
    return screen


async def offered_models(pilot: Pilot[None]) -> list[str]:
    """Open the list of models for a column, and return its rows."""
    await pilot.press("f3")
    assert isinstance(pilot.app.screen, ModelChoiceDialog)
    options = pilot.app.screen.query_one(OptionList)
    return [" ".join(str(option.prompt).split()) for option in options.options]


def generate_alone(model: NumpyLSTM, screen: SideBySideScreen) -> list[str]:
    assert screen.prompt_and_seed is not None
    prompt, seed = screen.prompt_and_seed
    events = generate(model, encode_prompt(prompt, model.tokenizer).ids, screen.settings, seed)
    return [event.text for event in events if isinstance(event, TokenEvent)]


@SIZES
async def test_two_epochs_beside_the_best_model(
    make_app: MakeApp, folder: Path, trained: Path, size: tuple[int, int]
) -> None:
    async with make_app(session_model=load_session_model([RUN], folder)).run_test(size=size) as pilot:
        screen = await open_side_by_side(pilot)
        rows = await offered_models(pilot)
        assert rows[2:5] == [
            "tiny-test@1 epoch 1 valid 130.0",
            "tiny-test@2 epoch 2 valid 115.0",
            "tiny-test@4 epoch 4 valid 95.3",
        ]
        await pilot.press("down", "down", "enter")
        await until_columns_ended(pilot, screen)
        await offered_models(pilot)
        await pilot.press("down", "down", "down", "down", "enter")
        await until_columns_ended(pilot, screen)
        assert [slot.output.title for slot in screen.slots] == ["tiny-test", "tiny-test@1", "tiny-test@4"]
        assert screen.slots[1].output.description == "epoch 1 · valid 130.0 (Kneser-Ney 90.8)"
        assert screen.slots[2].output.description == "epoch 4 · valid 95.3 (Kneser-Ney 90.8)"
        for slot, seed in zip(screen.slots, (5, 1, 4), strict=True):
            assert generated_words(slot.output) == generate_alone(make_decoder(seed), screen)
        if size[0] >= 80:
            assert column_lines(screen)[0].split() == ["tiny-test", "tiny-test@1", "tiny-test@4"]
            assert "epoch 4" in columns_text(screen)
            assert "valid 95.3" in columns_text(screen)


async def test_epochs_of_a_running_training(make_app: MakeApp, folder: Path, use_job: UseJob) -> None:
    job = RecordedJob(folder, 5)
    use_job(job)
    async with make_app().run_test(size=(80, 24)) as pilot:
        session = pilot.app.screen
        assert isinstance(session, SessionScreen)
        session.start_training(PRESETS["tiny"])
        job.release(EVENTS_BEFORE + EVENTS_OF_EPOCH)
        await until(
            pilot, lambda: session.session_model.name == RUN and "epoch 1.0" in session.session_model.description
        )
        screen = await open_side_by_side(pilot)
        assert screen.slots[0].output.title == RUN
        assert [row for row in await offered_models(pilot) if "@" in row] == ["tiny-test@1 epoch 1 valid 130.0"]
        await pilot.press("escape")

        job.release(3 * EVENTS_OF_EPOCH)
        await until(pilot, lambda: len(list_epoch_checkpoints(job.recorded.path)) == 3)
        rows = await offered_models(pilot)
        assert [row.split()[0] for row in rows if "@" in row] == ["tiny-test@1", "tiny-test@2", "tiny-test@4"]
        await pilot.press("down", "down", "down", "enter")
        await until_columns_ended(pilot, screen)
        assert screen.slots[1].output.title == "tiny-test@2"
        assert generated_words(screen.slots[1].output) == generate_alone(make_decoder(2), screen)
        assert pilot.app.is_training  # type: ignore[attr-defined]


async def test_deleted_epoch_is_reported_in_one_line(make_app: MakeApp, folder: Path, trained: Path) -> None:
    async with make_app(session_model=load_session_model([RUN], folder)).run_test(size=(120, 24)) as pilot:
        screen = await open_side_by_side(pilot)
        await offered_models(pilot)
        epoch_weights_path(trained, 1).unlink()
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: "tiny-test@1: " in note_text(screen))
        assert "did not keep epoch 1; it kept 2, 4" in note_text(screen)
        assert len(screen.slots) == 1


async def test_run_without_saved_epochs_offers_none(make_app: MakeApp, folder: Path, trained: Path) -> None:
    for epoch in (1, 2, 4):
        epoch_weights_path(trained, epoch).unlink()
    async with make_app(session_model=load_session_model([RUN], folder)).run_test(size=(80, 24)) as pilot:
        await open_side_by_side(pilot)
        assert not any("@" in row for row in await offered_models(pilot))


async def test_session_with_an_epoch_offers_the_other_epochs(make_app: MakeApp, folder: Path, trained: Path) -> None:
    session_model = load_session_model([f"{RUN}@2"], folder)
    assert (session_model.name, session_model.description) == ("tiny-test@2", "epoch 2 · valid 115.0 (Kneser-Ney 90.8)")
    assert session_model.run == trained
    async with make_app(session_model=session_model).run_test(size=(80, 24)) as pilot:
        screen = await open_side_by_side(pilot)
        assert generated_words(screen.slots[0].output) == generate_alone(make_decoder(2), screen)
        rows = await offered_models(pilot)
        assert [row.split()[0] for row in rows[2:]] == [
            "tiny-test@1",
            "tiny-test@2",
            "tiny-test@4",
            "bundled",
            "base",
            RUN,
        ]
        await pilot.press("end", "enter")
        await until_columns_ended(pilot, screen)
        assert generated_words(screen.slots[1].output) == generate_alone(make_decoder(5), screen)


def test_chosen_epoch_loads_its_weights(folder: Path, trained: Path) -> None:
    session_model = load_model_choice(ModelChoice("run", str(trained), 4), folder)
    assert isinstance(session_model.model, NumpyLSTM)
    expected = make_decoder(4).weights
    assert all((session_model.model.weights[name] == expected[name]).all() for name in expected)
    assert session_model.name == ModelChoice("run", str(trained), 4).name == "tiny-test@4"
    with pytest.raises(RunError, match="did not keep epoch 3"):
        load_model_choice(ModelChoice("run", str(trained), 3), folder)


def test_several_epochs_form_an_ensemble(folder: Path, trained: Path) -> None:
    session_model = load_session_model([f"{RUN}@1", f"{RUN}@4"], folder)
    assert session_model.description == "0.50 tiny-test@1 + 0.50 tiny-test@4"
