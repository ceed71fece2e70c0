"""The chapter on overfitting: its numbers, its task, and leaving it while it trains."""

import pytest

from engine.data.dataset import load_dataset
from lotr_tui.learn import live_training
from lotr_tui.learn.live_training import load_overfitting_run, train_perplexity
from lotr_tui.learn.material import bundled_data_config
from lotr_tui.screens.learn.figures.training import CurveChart, OverfittingFigure
from tests.support.app import make_decoder
from tests.support.files import run_to_end
from tests.support.learn import chapter_screen, num_evaluations, open_chapter, until_done
from tests.support.live_training import live_events, live_job
from tests.support.pilot import lines_of, text_of, until

DATA = bundled_data_config()
PREPARED = run_to_end(load_overfitting_run(DATA, load_dataset(DATA), lambda: False))[0]
BETTER, WORSE = PREPARED.best - 0.1, PREPARED.best + 0.1
pytestmark = pytest.mark.usefixtures("temporary")


def figure_of(pilot):
    return chapter_screen(pilot).query_one(OverfittingFigure)


def gaps(pilot):
    return [line.split() for line in text_of(figure_of(pilot).query_one("#gaps")).splitlines()]


async def train(pilot, use_job, valid):
    job = use_job(live_job(live_events(valid, models=True)))
    await pilot.press("enter")
    await until(pilot, lambda: num_evaluations(pilot) == len(valid))
    return job


async def test_own_training_is_shown_beside_the_prepared_run_and_the_task_is_done(make_host, use_job, temporary):
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "overfitting")

        def chart():
            return lines_of(screen.query_one(CurveChart))

        train_score, valid = PREPARED.train[-1], PREPARED.valid[-1]
        figures = [f"{value:.1f}" for value in (train_score, valid, valid - train_score, PREPARED.best)]
        assert gaps(pilot)[1:] == [["without", *figures, "0.0", "0.0", "no"], ["yours", *["·"] * 7]]
        for text in (f"without held-out {valid:.1f}", f"without train {train_score:.1f}"):
            assert text in chart()
        assert not screen.finished_parts

        job = await train(pilot, use_job, [2247.0, 150.0, WORSE])
        train_score = train_perplexity(make_decoder(2), job.dataset)
        figures = [f"{value:.1f}" for value in (train_score, WORSE, WORSE - train_score, WORSE)]
        assert gaps(pilot)[2][:5] == ["yours", *figures]
        for text in (f"yours held-out {WORSE:.1f}", f"yours train {train_score:.1f}"):
            assert text in chart()
        await pilot.press("enter")
        await until(pilot, lambda: not figure_of(pilot).is_training)
        assert not screen.is_done
        line = text_of(screen.query_one("#train-line"))
        assert "▶ enter trains again" in line
        assert "no better than without" in line
        await pilot.press(*["right"] * 3, "tab", "right", "tab", "right")
        # The result stays, beside the settings that it was trained with.
        assert text_of(screen.query_one("#train-line")).endswith("no better than without")
        assert gaps(pilot)[2][5:] == ["0.0", "0.0", "no"]
        await train(pilot, use_job, [2247.0, 150.0, BETTER])
        await until_done(pilot)
        model = figure_of(pilot).training.config.model
        assert (model.input_dropout, model.output_dropout) == (0.3, 0.3)
        assert (model.weight_drop, model.tie_weights) == (0.1, True)
        assert gaps(pilot)[2][5:] == ["0.3", "0.1", "yes"]
        await pilot.click("#train-line")
        await until(pilot, lambda: not figure_of(pilot).is_training)
        job = await train(pilot, use_job, [2247.0, 150.0])
        await pilot.press("b")
        await until(pilot, job.stopped.is_set)
        await until(pilot, lambda: not list(temporary.glob(f"{live_training.TEMPORARY_PREFIX}*")))
