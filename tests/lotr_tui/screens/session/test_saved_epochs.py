"""The epochs of a run: played by name, and side by side with what became of them, while it trains and after."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import OptionList

from engine.config import PRESETS, Config
from engine.errors import RunError
from engine.events import TrainingEvent
from engine.generation.generate import TokenEvent, encode_prompt, stream
from engine.models.numpy_lstm import Decoder
from engine.runs import store, writer
from engine.training import job as jobs
from lotr_tui.app import LotrApp
from lotr_tui.screens.comparison.side_by_side import Choice, ChooseColumn, SideBySideScreen, load_choice
from lotr_tui.screens.session.screen import PlayScreen
from lotr_tui.session.player import open_player
from tests.lotr_tui.conftest import VOCABULARY, FakeJob, finished, make_decoder, training_events
from tests.lotr_tui.screens.comparison.test_ladder import SIZES, ended, lines, note, shown, words_in
from tests.lotr_tui.screens.session.test_session_screen import until

MakeApp = Callable[..., LotrApp]
RUN = "tiny-test"
EVENTS_BEFORE, EVENTS_OF_EPOCH = 4, 6
"""Of `training_events`, before the first epoch and in each."""


class RecordedJob(FakeJob):
    """A `FakeJob` whose events are recorded as those of a true one are."""

    def __init__(self, folder: Path, epochs: int) -> None:
        super().__init__([*training_events(epochs), finished(make_decoder(epochs))])
        config = Config("tiny").with_values(
            embedding_size=12, hidden_size=12, pauses=False, corpus=str(folder / "away.csv")
        )
        self.recorded = writer.create(config, VOCABULARY, RUN, folder)

    def events(self, cancelled: Callable[[], bool]) -> Iterator[TrainingEvent]:
        return writer.record(self.recorded, super().events(cancelled))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs"


@pytest.fixture
def trained(folder: Path) -> Path:
    """A run of five epochs, the last the best."""
    job = RecordedJob(folder, 5).release()
    list(job.events(lambda: True))
    return job.recorded.path


async def side_by_side(pilot: Pilot[None]) -> SideBySideScreen:
    """Type a prompt and press the key; Kneser-Ney goes again, for there is no corpus."""
    await pilot.press(*"the tower", "ctrl+y")
    screen = pilot.app.screen
    assert isinstance(screen, SideBySideScreen)
    await until(pilot, lambda: "away.csv" in note(screen))
    await ended(pilot, screen)
    return screen


async def offered(pilot: Pilot[None]) -> list[str]:
    """Open the list of what can stand in a column."""
    await pilot.press("f3")
    assert isinstance(pilot.app.screen, ChooseColumn)
    options = pilot.app.screen.query_one(OptionList)
    return [" ".join(str(option.prompt).split()) for option in options.options]


def alone(model: Decoder, screen: SideBySideScreen) -> list[str]:
    assert screen.asked is not None
    prompt, seed = screen.asked
    events = stream(model, encode_prompt(prompt, model.vocabulary).ids, screen.settings, seed)
    return [event.text for event in events if isinstance(event, TokenEvent)]


@SIZES
async def test_two_epochs_beside_the_best(
    make_app: MakeApp, folder: Path, trained: Path, size: tuple[int, int]
) -> None:
    async with make_app(player=open_player([RUN], folder)).run_test(size=size) as pilot:
        screen = await side_by_side(pilot)
        rows = await offered(pilot)
        assert rows[2:5] == [
            "tiny-test@1 epoch 1 valid 130.0",
            "tiny-test@2 epoch 2 valid 115.0",
            "tiny-test@4 epoch 4 valid 95.3",
        ]
        await pilot.press("down", "down", "enter")
        await ended(pilot, screen)
        await offered(pilot)
        await pilot.press("down", "down", "down", "down", "enter")
        await ended(pilot, screen)
        assert [slot.text.title for slot in screen.slots] == ["tiny-test", "tiny-test@1", "tiny-test@4"]
        assert screen.slots[1].text.about == "epoch 1 · valid 130.0 (Kneser-Ney 90.8)"
        assert screen.slots[2].text.about == "epoch 4 · valid 95.3 (Kneser-Ney 90.8)"
        for slot, seed in zip(screen.slots, (5, 1, 4), strict=True):
            assert words_in(slot.text) == alone(make_decoder(seed), screen)
        if size[0] >= 80:
            assert lines(screen)[0].split() == ["tiny-test", "tiny-test@1", "tiny-test@4"]
            assert "epoch 4 · valid 95.3" in shown(screen)


async def test_while_the_run_is_still_training_in_the_session(
    make_app: MakeApp, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = RecordedJob(folder, 5)
    monkeypatch.setattr(jobs, "prepare_job", lambda *_, **__: job)
    async with make_app().run_test(size=(80, 24)) as pilot:
        play = pilot.app.screen
        assert isinstance(play, PlayScreen)
        play.begin_training(PRESETS["tiny"])
        job.release(EVENTS_BEFORE + EVENTS_OF_EPOCH)
        await until(pilot, lambda: play._player.name == RUN and "epoch 1.0" in play._player.description)
        screen = await side_by_side(pilot)
        assert screen.slots[0].text.title == RUN
        assert [row for row in await offered(pilot) if "@" in row] == ["tiny-test@1 epoch 1 valid 130.0"]
        await pilot.press("escape")

        job.release(3 * EVENTS_OF_EPOCH)
        await until(pilot, lambda: len(store.kept_epochs(job.recorded.path)) == 3)
        rows = await offered(pilot)
        assert [row.split()[0] for row in rows if "@" in row] == ["tiny-test@1", "tiny-test@2", "tiny-test@4"]
        await pilot.press("down", "down", "down", "enter")
        await ended(pilot, screen)
        assert screen.slots[1].text.title == "tiny-test@2"
        assert words_in(screen.slots[1].text) == alone(make_decoder(2), screen)
        assert pilot.app.is_training  # type: ignore[attr-defined]


async def test_an_epoch_that_is_gone_by_then_is_said_in_one_line(
    make_app: MakeApp, folder: Path, trained: Path
) -> None:
    async with make_app(player=open_player([RUN], folder)).run_test(size=(120, 24)) as pilot:
        screen = await side_by_side(pilot)
        await offered(pilot)
        store.epoch_file(trained, 1).unlink()
        await pilot.press("down", "down", "enter")
        await until(pilot, lambda: "tiny-test@1: " in note(screen))
        assert "has not kept epoch 1; it has kept 2, 4" in note(screen)
        assert len(screen.slots) == 1


async def test_a_run_without_epochs_offers_none(make_app: MakeApp, folder: Path, trained: Path) -> None:
    for epoch in (1, 2, 4):
        store.epoch_file(trained, epoch).unlink()
    async with make_app(player=open_player([RUN], folder)).run_test(size=(80, 24)) as pilot:
        await side_by_side(pilot)
        assert not any("@" in row for row in await offered(pilot))


async def test_an_epoch_played_by_name_offers_the_others_and_its_best(
    make_app: MakeApp, folder: Path, trained: Path
) -> None:
    player = open_player([f"{RUN}@2"], folder)
    assert (player.name, player.description) == ("tiny-test@2", "epoch 2 · valid 115.0 (Kneser-Ney 90.8)")
    assert player.run == trained
    async with make_app(player=player).run_test(size=(80, 24)) as pilot:
        screen = await side_by_side(pilot)
        assert words_in(screen.slots[0].text) == alone(make_decoder(2), screen)
        rows = await offered(pilot)
        assert [row.split()[0] for row in rows[2:]] == ["tiny-test@1", "tiny-test@2", "tiny-test@4", "bundled", RUN]
        await pilot.press("end", "enter")
        await ended(pilot, screen)
        assert words_in(screen.slots[1].text) == alone(make_decoder(5), screen)


def test_a_choice_of_an_epoch_is_that_epoch(folder: Path, trained: Path) -> None:
    player = load_choice(Choice("run", str(trained), 4), folder)
    assert isinstance(player.model, Decoder)
    expected = make_decoder(4).weights
    assert all((player.model.weights[name] == expected[name]).all() for name in expected)
    assert player.name == Choice("run", str(trained), 4).name == "tiny-test@4"
    with pytest.raises(RunError, match="has not kept epoch 3"):
        load_choice(Choice("run", str(trained), 3), folder)


def test_several_epochs_are_an_ensemble(folder: Path, trained: Path) -> None:
    player = open_player([f"{RUN}@1", f"{RUN}@4"], folder)
    assert player.description == "0.50 tiny-test@1 + 0.50 tiny-test@4"
