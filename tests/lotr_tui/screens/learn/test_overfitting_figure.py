"""Tests of the chapter on overfitting: its numbers, its task, its controls, and leaving it while it trains."""

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from engine.storage.files import assets_dir
from lotr_tui.learn import live_training, overfitting_run
from lotr_tui.learn.chapters import find_chapter
from lotr_tui.learn.live_training import train_perplexity
from lotr_tui.learn.material import Material
from lotr_tui.learn.overfitting_run import Regularization, read_curves
from lotr_tui.screens.learn.curve_chart import CurveChart
from lotr_tui.screens.learn.figures.overfitting import OverfittingFigure
from lotr_tui.screens.learn.live_figure import TrainLine
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.widgets.slider import Slider
from tests.support.app import FakeJob, UseJob, make_decoder
from tests.support.learn import chapter_screen, num_evaluations, open_chapter, until_done
from tests.support.live_training import live_events, live_job
from tests.support.pilot import MakeApp, lines_of, text_of, until
from tests.support.small_corpora import write_corpus

PREPARED = read_curves(assets_dir() / "class/overfitting")
pytestmark = pytest.mark.usefixtures("temporary")

BETTER, WORSE = PREPARED.best - 0.1, PREPARED.best + 0.1


def figure_of(pilot: Pilot[None]) -> OverfittingFigure:
    return chapter_screen(pilot).query_one(OverfittingFigure)


def gaps(pilot: Pilot[None]) -> list[list[str]]:
    """Return the cells of the table."""
    return [line.split() for line in text_of(figure_of(pilot).query_one("#gaps", Static)).splitlines()]


def use(use_job: UseJob, valid: list[float]) -> FakeJob:
    return use_job(live_job(live_events(valid, models=True)))


async def test_prepared_run_is_shown_with_its_gap(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "overfitting")
        train, valid = PREPARED.train[-1], PREPARED.valid[-1]
        assert gaps(pilot)[1] == [
            "without",
            *(f"{value:.1f}" for value in (train, valid, valid - train, PREPARED.best)),
            *("0.0", "0.0", "no"),
        ]
        assert gaps(pilot)[2] == ["yours", *["·"] * 7]
        chart = lines_of(screen.query_one(CurveChart))
        assert f"without held-out {valid:.1f}" in chart
        assert f"without train {train:.1f}" in chart
        assert not screen.finished_parts


async def test_live_run_is_shown_with_the_perplexity_of_the_training_text(make_host: MakeApp, use_job: UseJob) -> None:
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "overfitting")
        job = use(use_job, [2247.0, 150.0, 130.0])
        await pilot.press("enter")
        await until(pilot, lambda: num_evaluations(pilot) == 3)
        train = train_perplexity(make_decoder(2), job.dataset)  # type: ignore[attr-defined]
        numbers = train, 130.0, 130.0 - train, 130.0
        assert gaps(pilot)[2][:5] == ["yours", *(f"{number:.1f}" for number in numbers)]
        chart = lines_of(screen.query_one(CurveChart))
        assert "yours held-out 130.0" in chart
        assert f"yours train {train:.1f}" in chart


async def test_task_is_done_by_keyboard(make_host: MakeApp, use_job: UseJob) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "overfitting")
        use(use_job, [2247.0, 150.0, WORSE])
        await pilot.press("enter")
        await until(pilot, lambda: num_evaluations(pilot) == 3)
        await pilot.press("enter")
        await until(pilot, lambda: not figure_of(pilot).is_training)
        assert not screen.is_done
        assert "▶ enter trains again" in text_of(screen.query_one(TrainLine))
        assert "no better than without" in text_of(screen.query_one(TrainLine))
        await pilot.press(*["right"] * 3, "tab", "right", "tab", "right")
        # The result stays, beside the settings that it was trained with.
        assert "▶ enter trains these settings" in text_of(screen.query_one(TrainLine))
        assert text_of(screen.query_one(TrainLine)).endswith("no better than without")
        assert gaps(pilot)[2][5:] == ["0.0", "0.0", "no"]
        use(use_job, [2247.0, 150.0, BETTER])
        await pilot.press("enter")
        await until_done(pilot)
        training = figure_of(pilot).training
        assert training is not None
        model = training.config.model
        assert (model.input_dropout, model.output_dropout) == (0.3, 0.3)
        assert (model.weight_drop, model.tie_weights) == (0.1, True)
        assert gaps(pilot)[2][5:] == ["0.3", "0.1", "yes"]


@pytest.mark.parametrize("size", [(80, 24), (60, 20)])
async def test_task_is_done_by_mouse(make_host: MakeApp, use_job: UseJob, size: tuple[int, int]) -> None:
    async with make_host().run_test(size=size) as pilot:
        screen = await open_chapter(pilot, "overfitting")
        if size == (60, 20):
            await pilot.press("f5")
            await pilot.pause()
        for id in ("dropout", "weight-drop", "tie"):
            slider = screen.query_one(f"#{id}", Slider)
            await pilot.click(slider, offset=(slider.size.width - 7, 0))
        setting = figure_of(pilot).setting
        assert setting.dropout > 0.5
        assert setting.weight_drop > 0.5
        assert setting.tie_weights
        use(use_job, [2247.0, BETTER])
        await pilot.click(TrainLine)
        await until_done(pilot)
        await pilot.click(TrainLine)
        await until(pilot, lambda: not figure_of(pilot).is_training)


async def test_leaving_stops_the_training(make_host: MakeApp, use_job: UseJob, temporary: Path) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, "overfitting")
        job = use(use_job, [2247.0, 150.0])
        await pilot.press("enter")
        await until(pilot, lambda: num_evaluations(pilot) == 2)
        await pilot.press("f2")
        await until(pilot, job.stopped.is_set)
        await until(pilot, lambda: not list(temporary.glob(f"{live_training.TEMPORARY_PREFIX}*")))


async def test_corpus_of_the_user_is_trained_without_regularization_first(
    make_host: MakeApp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a real training, which is short, and then a live one with the same settings: the same numbers."""
    monkeypatch.setattr(live_training, "MAX_TRAIN_TOKENS", 3000)
    monkeypatch.setattr(overfitting_run, "EPOCHS", 1)
    material = Material(write_corpus(tmp_path / "own.csv", 500))
    async with make_host().run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, "overfitting", lambda: material)
        figure = figure_of(pilot)
        assert figure.setting == Regularization()
        assert figure.data is not None
        await pilot.press("enter")
        await until(pilot, lambda: not figure.is_training and num_evaluations(pilot) > 2, 30)
        assert figure.live_curves == figure.data.curves
        assert gaps(pilot)[1][1:] == gaps(pilot)[2][1:]


async def test_text_that_is_too_short_is_one_line(make_host: MakeApp, tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "short.csv", 100)
    async with make_host().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(ChapterScreen(lambda: Material(data), find_chapter("overfitting")))
        await until(pilot, lambda: pilot.app.screen.query("#figure-message"))
        message = pilot.app.screen.query_one("#figure-message", Static)
        await until(pilot, lambda: "words, and a training" in text_of(message))
