"""The chapter on training: its numbers, its task, its controls, and leaving it while it trains."""

import pytest
from textual.widgets import Static

from engine.analysis.evaluation import evaluate
from engine.data.dataset import load_dataset
from engine.models.ngram import KneserNey, Unigram
from lotr_tui.learn import live_training
from lotr_tui.learn.chapters import find_chapter
from lotr_tui.learn.live_training import train_perplexity
from lotr_tui.learn.material import Material, bundled_data_config
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.screens.dialogs.dialog import ConfirmDialog
from lotr_tui.screens.learn.figures.training import FIRST_RATE, LEARNING_RATES, CurveChart, TrainingFigure
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.widgets.slider import Slider
from tests.support.app import make_decoder
from tests.support.files import write_corpus
from tests.support.learn import chapter_screen, num_evaluations, open_chapter, until_done
from tests.support.live_training import live_events, live_job
from tests.support.pilot import lines_of, text_of, until

GOOD = [2247.0, 295.0, 208.0, 170.0, 146.0, 135.0, 127.0, 120.0, 114.5, 111.0, 108.2]
SLOW = [2247.0, *[2000.0] * 8]
FAST = [2247.0, 1e9, 1e9, 1e9]
pytestmark = pytest.mark.usefixtures("temporary")


def figure_of(pilot):
    return chapter_screen(pilot).query_one(TrainingFigure)


def train_line(pilot):
    return text_of(figure_of(pilot).query_one("#train-line"))


async def train(pilot, use_job, valid, *, models=False):
    """Start a training with the evaluations `valid`, and wait until all are shown."""
    job = use_job(live_job(live_events(valid, models=models)))
    await pilot.press("enter")
    await until(pilot, lambda: num_evaluations(pilot) == len(valid))
    return job


async def test_curves_and_samples_are_those_of_the_events_and_the_slider_sets_the_rate(make_host, use_job):
    async with make_host().run_test(size=(120, 45)) as pilot:
        screen = await open_chapter(pilot, "training")

        def chart():
            return lines_of(screen.query_one(CurveChart))

        dataset = load_dataset(bundled_data_config())
        for name, model in (
            ("unigram", Unigram(dataset.train, dataset.tokenizer)),
            ("5-gram", KneserNey(dataset.train, dataset.tokenizer, 5)),
        ):
            assert f"{name} {evaluate(model, dataset.valid).perplexity:.1f}" in chart()

        await pilot.press("right", "right")
        job = await train(pilot, use_job, GOOD[:4], models=True)
        assert "held-out 170.0" in train_line(pilot)
        assert "epoch 0.75 of 5" in train_line(pilot)
        # Both texts are scored in the same way, so that their curves can be compared.
        train_score = train_perplexity(make_decoder(3), job.dataset)
        for text in ("held-out 170.0", f"train {train_score:.1f}", "unigram 285.8", "5-gram 110.2"):
            assert text in chart()
        samples = text_of(screen.query_one("#samples")).strip("\n").splitlines()
        assert samples == [f"{number / 4:6.2f}   bilbo baggins is a friend of mine {number}" for number in range(4)]
        await pilot.resize_terminal(80, 24)
        await pilot.press("left")
        assert screen.query_one(CurveChart).size.height >= 6

        await until(pilot, lambda: len(job.commands) == 2)
        rates = LEARNING_RATES[FIRST_RATE + 2], LEARNING_RATES[FIRST_RATE + 1]
        highest = figure_of(pilot).training.config.training.lr
        assert [float(command.value) * highest for command in job.commands] == pytest.approx(rates)
        assert {command.kind for command in job.commands} == {"lr"}
        slider = screen.query_one(Slider)
        assert text_of(slider).endswith(" 0.003")
        await pilot.click(slider, offset=(slider.size.width - 12, 0))
        assert slider.index > FIRST_RATE + 2
        await until(pilot, lambda: len(job.commands) == 3)


async def test_task_is_done_by_trainings_that_are_too_slow_too_fast_and_good(make_host, use_job):
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "training")

        async def stop():
            await pilot.press("enter")
            await until(pilot, lambda: not figure_of(pilot).is_training, 30)

        for valid, result in (([2247.0, 180.0, 131.0], "131.0, falling"), ([2247.0, 131.0, 133.0], "131.0")):
            await train(pilot, use_job, valid)
            await stop()
            assert train_line(pilot) == f"▶ enter trains again · stopped · best {result}: above the 5-gram model"
        assert not screen.finished_parts
        for part, (valid, result) in enumerate(
            (
                (SLOW, "stopped · too slow: still above the unigram model"),
                (FAST, "stopped · too fast: the loss has jumped"),
                (GOOD, "stopped · best 108.2: below the 5-gram model"),
            )
        ):
            assert part not in screen.finished_parts
            await train(pilot, use_job, valid)
            await until(pilot, lambda part=part: part in screen.finished_parts)
            await stop()
            await until(pilot, lambda: not figure_of(pilot).is_training)
            assert train_line(pilot) == f"▶ enter trains again · {result}"
        await until_done(pilot)
        app.state.is_training = True  # the session trains too
        await train(pilot, use_job, GOOD[:2])
        assert figure_of(pilot).training.config.training.threads == 0
        assert "both are slower" in text_of(figure_of(pilot).query_one("#figure-message", Static))
        await stop()
        use_job(live_job([], OSError(28, "No space left on device")))
        await pilot.press("enter")
        await until(pilot, lambda: "No space left" in train_line(pilot))


@pytest.mark.parametrize("leave", ["n", "escape"])
async def test_leaving_stops_the_training_and_keeps_the_progress(make_host, use_job, temporary, leave):
    ProgressStore().add(done="tokens")
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, "training")
        job = await train(pilot, use_job, GOOD)
        assert list(temporary.glob(f"{live_training.TEMPORARY_PREFIX}*"))
        await pilot.press(leave)
        if leave == "escape":
            await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
            await pilot.press("y")
        await until(pilot, lambda: job.stopped.is_set() or app.return_code is not None)
    assert job.stopped.wait(1)
    assert not list(temporary.glob(f"{live_training.TEMPORARY_PREFIX}*"))
    assert ProgressStore().current.last in ("training", "overfitting")


async def test_text_that_is_too_short_is_refused_in_one_line(make_host, tmp_path):
    short = write_corpus(tmp_path / "short.csv", 100)
    async with make_host().run_test(size=(120, 35)) as pilot:
        await pilot.app.push_screen(ChapterScreen(lambda: Material(short), find_chapter("training")))
        await until(pilot, lambda: pilot.app.screen.query("#figure-message"))
        message = pilot.app.screen.query_one("#figure-message", Static)
        await until(pilot, lambda: "words, and a training" in text_of(message))
