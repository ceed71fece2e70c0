"""Tests of the chapter on training: its numbers, its task, its controls, and leaving it while it trains."""

from pathlib import Path

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from engine.analysis.perplexity import evaluate
from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.models.ngram import KneserNey, Unigram
from engine.storage.files import assets_dir
from lotr_tui.learn import live_training
from lotr_tui.learn.chapters import CHAPTERS, find_chapter
from lotr_tui.learn.class_models import bundled_data_config
from lotr_tui.learn.live_training import train_perplexity
from lotr_tui.learn.material import Material
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.screens.dialogs.confirm import ConfirmDialog
from lotr_tui.screens.learn.curve_chart import CurveChart
from lotr_tui.screens.learn.figures import training as figure_module
from lotr_tui.screens.learn.figures.training import FIRST_RATE, LEARNING_RATES, TrainingFigure, format_rate
from lotr_tui.screens.learn.live_figure import TrainLine
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.screens.learn.window_text import SampleLines, WindowText
from lotr_tui.session.session_model import load_session_model
from lotr_tui.widgets.slider import Slider
from tests.support.app import FakeJob, UseJob, make_decoder
from tests.support.learn import chapter_screen, num_evaluations, open_chapter, until_done
from tests.support.live_training import live_events, live_job
from tests.support.pilot import MakeApp, lines_of, text_of, until
from tests.support.small_corpora import write_corpus

GOOD = [2247.0, 295.0, 208.0, 170.0, 146.0, 135.0, 127.0, 120.0, 114.5, 111.0, 108.2]
SLOW = [2247.0, *[2000.0] * 8]
pytestmark = pytest.mark.usefixtures("temporary")

FAST = [2247.0, 1e9, 1e9, 1e9]
SMALL_MODEL = ModelConfig(embedding_size=8, hidden_size=8, subword_embeddings=False, unigram_bias=False)


def figure_of(pilot: Pilot[None]) -> TrainingFigure:
    return chapter_screen(pilot).query_one(TrainingFigure)


def train_line(pilot: Pilot[None]) -> str:
    return text_of(figure_of(pilot).query_one(TrainLine))


async def train(
    pilot: Pilot[None], use_job: UseJob, valid: list[float], key: str = "enter", *, models: bool = False
) -> FakeJob:
    """Start a training with the evaluations `valid`, and wait until all are shown."""
    job = use_job(live_job(live_events(valid, models=models)))
    await pilot.press(key)
    await until(pilot, lambda: num_evaluations(pilot) == len(valid))
    return job


async def test_counting_models_and_first_window_are_shown_before_a_training(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "training")
        chart = lines_of(screen.query_one(CurveChart))
        dataset = load_dataset(bundled_data_config())
        for name, model in (
            ("unigram", Unigram(dataset.train, dataset.tokenizer)),
            ("5-gram", KneserNey(dataset.train, dataset.tokenizer, 5)),
        ):
            assert f"{name} {evaluate(model, dataset.valid).perplexity:.1f}" in chart
        window = text_of(screen.query_one(WindowText))
        row_length = len(dataset.train) // 20
        assert f"row 1 of 20 · words 1 to 25 of {row_length:,}" in window
        inside = window[window.rindex("[") + 1 : window.index("]")].replace("¶", "<eos>").split()
        assert inside == [dataset.tokenizer.tokens[id] for id in dataset.train[:25].tolist()]
        assert not screen.finished_parts


async def test_curve_sample_and_window_are_those_of_the_events(make_host: MakeApp, use_job: UseJob) -> None:
    async with make_host().run_test(size=(120, 45)) as pilot:
        screen = await open_chapter(pilot, "training")
        job = await train(pilot, use_job, GOOD[:4], models=True)
        assert "held-out 170.0" in train_line(pilot)
        assert "epoch 0.75 of 5" in train_line(pilot)
        chart = lines_of(screen.query_one(CurveChart))
        # Both texts are scored in the same way, so that their curves can be compared.
        train_score = train_perplexity(make_decoder(3), job.dataset)  # type: ignore[attr-defined]
        for text in ("held-out 170.0", f"train {train_score:.1f}", "unigram 285.8", "5-gram 110.2"):
            assert text in chart
        samples = text_of(screen.query_one(SampleLines)).splitlines()
        assert samples == [f"{number / 4:6.2f}   bilbo baggins is a friend of mine {number}" for number in range(4)]
        begin = (56 * 3 - 1) * 25
        assert f"words {begin + 1:,} to {begin + 25:,} of" in text_of(screen.query_one(WindowText))


async def test_task_is_done_by_keyboard(make_host: MakeApp, use_job: UseJob) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "training")
        for part, (valid, result) in enumerate(
            (
                (SLOW, "ended, since too slow: still above the unigram model"),
                (FAST, "ended, since too fast: the loss has jumped"),
                (GOOD, "stopped · best 108.2: below the 5-gram model"),
            )
        ):
            assert part not in screen.finished_parts
            await train(pilot, use_job, valid)
            await until(pilot, lambda part=part: part in screen.finished_parts)  # type: ignore[misc]
            if valid is GOOD:
                await pilot.press("enter")
            await until(pilot, lambda: not figure_of(pilot).is_training)
            assert train_line(pilot) == f"▶ enter trains again · {result}"
        await until_done(pilot)
        assert "✓ Done" in text_of(screen.query_one("#task", Static))


async def test_mouse_starts_and_stops_a_training_and_moves_the_rate(make_host: MakeApp, use_job: UseJob) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, "training")
        job = use_job(live_job(live_events(GOOD)))
        await pilot.click(TrainLine)
        await until(pilot, lambda: num_evaluations(pilot) == len(GOOD))
        await until(pilot, lambda: 2 in chapter_screen(pilot).finished_parts)  # its message comes after the chart
        slider = figure_of(pilot).query_one(Slider)
        await pilot.click(slider, offset=(slider.size.width - 12, 0))
        assert slider.index > FIRST_RATE
        await until(pilot, lambda: len(job.commands) == 2)
        await pilot.click(TrainLine)
        await until(pilot, lambda: not figure_of(pilot).is_training)


async def test_slider_sets_the_rate_of_the_next_training_and_of_the_current_one(
    make_host: MakeApp, use_job: UseJob
) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, "training")
        await pilot.press("right", "right")
        job = await train(pilot, use_job, GOOD[:3])
        await pilot.press("left")
        await until(pilot, lambda: len(job.commands) == 2)
        factors = [float(command.value) for command in job.commands]
        rates = LEARNING_RATES[FIRST_RATE + 2], LEARNING_RATES[FIRST_RATE + 1]
        assert figure_of(pilot).training is not None
        highest = figure_of(pilot).training.config.training.lr  # type: ignore[union-attr]
        assert [factor * highest for factor in factors] == pytest.approx(rates)
        assert {command.kind for command in job.commands} == {"lr"}


async def test_curve_that_is_stopped_while_it_falls_is_said_to_fall(make_host: MakeApp, use_job: UseJob) -> None:
    for valid, result in (([2247.0, 180.0, 131.0], "131.0, falling"), ([2247.0, 131.0, 133.0], "131.0")):
        async with make_host().run_test(size=(80, 24)) as pilot:
            await open_chapter(pilot, "training")
            await train(pilot, use_job, valid)
            await pilot.press("enter")
            await until(pilot, lambda: not figure_of(pilot).is_training)
            assert train_line(pilot) == f"▶ enter trains again · stopped · best {result}: above the 5-gram model"


def test_hint_names_the_ends_of_the_slider() -> None:
    hint = CHAPTERS[find_chapter("training")].hint
    assert f"{format_rate(LEARNING_RATES[0])} and {format_rate(LEARNING_RATES[-1])}." in hint


async def test_window_is_a_sentence_where_the_chart_needs_the_row(make_host: MakeApp) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        screen = await open_chapter(pilot, "training")
        window = text_of(screen.query_one(WindowText))
        assert window.startswith("reads  [")
        assert "]" in window
        assert screen.query_one(CurveChart).size.height == 7


def test_learning_rates_are_written_without_exponent() -> None:
    texts = [format_rate(rate) for rate in LEARNING_RATES]
    assert [float(text) for text in texts] == list(LEARNING_RATES)
    assert texts[0] == "0.000001"
    assert texts[-1] == "1"


@pytest.mark.parametrize("leave", ["f3", "escape", "ctrl+q"])
async def test_leaving_stops_the_training_and_keeps_the_progress(
    make_host: MakeApp, use_job: UseJob, temporary: Path, leave: str
) -> None:
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


async def test_session_that_trains_too_is_mentioned(make_host: MakeApp, use_job: UseJob) -> None:
    app = make_host()
    async with app.run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, "training")
        app.is_training = True
        await train(pilot, use_job, GOOD[:2])
        training = figure_of(pilot).training
        assert training is not None
        assert training.config.training.threads == 0
        assert "both are slower" in text_of(figure_of(pilot).query_one("#figure-message", Static))


async def test_failure_of_a_training_is_one_line(make_host: MakeApp, use_job: UseJob) -> None:
    async with make_host().run_test(size=(80, 24)) as pilot:
        await open_chapter(pilot, "training")
        use_job(live_job([], OSError(28, "No space left on device")))
        await pilot.press("enter")
        await until(pilot, lambda: not figure_of(pilot).is_training)
        assert "No space left" in train_line(pilot)


async def test_text_that_is_too_short_is_one_line(make_host: MakeApp, tmp_path: Path) -> None:
    data = write_corpus(tmp_path / "short.csv", 100)
    async with make_host().run_test(size=(80, 24)) as pilot:
        await pilot.app.push_screen(ChapterScreen(lambda: Material(data), find_chapter("training")))
        await until(pilot, lambda: pilot.app.screen.query("#figure-message"))
        message = pilot.app.screen.query_one("#figure-message", Static)
        await until(pilot, lambda: "words, and a training" in text_of(message))


async def test_corpus_of_a_run_in_another_form_is_read_as_words(make_host: MakeApp) -> None:
    """The bundled model reads byte pairs and speakers; this chapter trains on the words of its corpus."""
    material = Material(session_model=load_session_model([str(assets_dir() / "class/transformer")], None))
    async with make_host().run_test(size=(60, 20)) as pilot:
        await open_chapter(pilot, "training", lambda: material)
        await pilot.press("f5")
        assert "5-gram 110.2" in lines_of(figure_of(pilot).query_one(CurveChart))


async def test_real_training(make_host: MakeApp, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr(live_training, "MAX_TRAIN_TOKENS", 3000)
    monkeypatch.setattr(live_training, "MAX_VALID_TOKENS", 300)
    monkeypatch.setattr(figure_module, "MODEL", SMALL_MODEL)
    monkeypatch.setattr(figure_module, "EPOCHS", 1)
    async with make_host().run_test(size=(120, 35)) as pilot:
        screen = await open_chapter(pilot, "training")
        before = lines_of(screen.query_one(CurveChart))
        await pilot.press("right", "right", "enter")
        await until(pilot, lambda: not figure_of(pilot).is_training and num_evaluations(pilot) > 1, 30)
        training = figure_of(pilot).training
        assert training is not None
        assert training.view.finished is not None
        assert set(training.view.steps.column("lr").tolist()) == {0.01}
        assert training.view.started is not None
        # The counting models of the figure are scored on the same words as those of the training.
        for baseline in (training.view.started.unigram_perplexity, training.view.started.kneser_ney_perplexity):
            assert f"{baseline:.1f}" in before
        assert f"held-out {training.view.evaluations[-1].valid_perplexity:.1f}" in lines_of(
            screen.query_one(CurveChart)
        )
        assert "bilbo" in text_of(screen.query_one(SampleLines))
        assert not list(temporary.glob(f"{live_training.TEMPORARY_PREFIX}*"))
