"""The dashboard, fed at the event seam."""

from collections.abc import Callable

from engine.events import Failed
from lotr_tui.app import LotrApp
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.figures import TrainingFigures
from lotr_tui.screens.dashboard.sample_timeline import SampleTimeline
from lotr_tui.screens.dashboard.screen import TrainScreen
from lotr_tui.screens.dashboard.tiles import Tiles
from lotr_tui.screens.dialogs.confirm import Confirm
from lotr_tui.screens.session.screen import PlayScreen
from lotr_tui.widgets.charts.perplexity_chart import PerplexityChart
from lotr_tui.widgets.keys_footer import KeysFooter
from tests.lotr_tui.conftest import FakeJob, finished, make_decoder, training_events
from tests.lotr_tui.screens.session.test_session_screen import text_of, until

MakeApp = Callable[..., LotrApp]


def dashboard_text(app: LotrApp) -> str:
    drawn = [app.screen.query_one(kind) for kind in (TrainingFigures, Tiles, PerplexityChart)]
    lines = [drawing.render_line(row).text for drawing in drawn for row in range(3)]
    return "\n".join([text_of(app.screen.query_one("#status")), *lines])


async def test_figures_lines_to_beat_and_samples(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release()
    app = make_app(job=job)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        shown = dashboard_text(app)
        for figure in ("tiny-test", "752,239 parameters", "Kneser-Ney 90.8", "unigram 150.9", "valid 72.5", "9,800"):
            assert figure in shown
        sample = text_of(app.screen.query_one(SampleTimeline))
        assert "epoch 12.0 · valid 72.5 · best" in sample
        assert "bilbo baggins is a friend of mine 12" in sample


async def test_before_the_first_update_there_is_something_to_read(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()).release(1))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "counting words and 5-grams" in dashboard_text(app))


async def test_stop_asks_and_no_means_no(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release(5)
    app = make_app(job=job)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("s")
        await pilot.pause()
        assert isinstance(app.screen, Confirm)
        await pilot.press("n")
        await pilot.pause()
        assert app.is_training
        assert not job.stopped.is_set()
        await pilot.press("s")
        await pilot.pause()
        await pilot.press("y")
        assert job.stopped.wait(1)


async def test_the_screen_stays_after_the_end_and_p_plays(make_app: MakeApp) -> None:
    job = FakeJob([*training_events(), finished(make_decoder(5))]).release()
    app = make_app(job=job)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "finished" in dashboard_text(app))
        assert "test 74.1" in dashboard_text(app)
        assert isinstance(app.screen, TrainScreen)
        await pilot.press("p")
        await pilot.pause()
        assert isinstance(app.screen, PlayScreen)
        assert "valid 72.5" in text_of(app.screen.query_one("#status"))


async def test_what_has_ended_is_not_offered_to_be_steered(make_app: MakeApp) -> None:
    job = FakeJob([*training_events(), finished(make_decoder(5))]).release(5)
    app = make_app(job=job)
    steering = {"pause", "stop", "ask('checkpoint')", "ask('detach')", "prompt", "lower"}
    async with app.run_test(size=(160, 45)) as pilot:

        def offered() -> set[str]:
            return {shown.binding.action for shown in app.screen.query_one(KeysFooter).shown_keys()}

        await until(pilot, lambda: steering <= offered())
        job.release()
        await until(pilot, lambda: not steering & offered())
        assert {"play", "runs", "close"} <= offered()
        await pilot.press("s", "ctrl+c")
        await pilot.pause()
        assert isinstance(app.screen, TrainScreen)


async def test_playing_before_there_is_a_model_is_refused(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()).release(1))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("p")
        await pilot.pause()
        assert isinstance(app.screen, TrainScreen)
        assert len(app._notifications) == 1


async def test_leaving_asks_while_training_goes_on(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release(5)
    app = make_app(job=job)
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("q")
        await pilot.pause()
        assert isinstance(app.screen, Confirm)
        await pilot.press("y")
        await until(pilot, lambda: not app.is_running or app._exit)
    assert job.stopped.wait(1)


async def test_a_failure_stands_on_the_screen(make_app: MakeApp) -> None:
    job = FakeJob(training_events()[:9], failure=RuntimeError("no room [left]")).release()
    app = make_app(job=job)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "failed: RuntimeError: no room [left]" in dashboard_text(app))
        assert not app.is_training


def test_the_view_gathers_the_same_from_events_and_from_their_records() -> None:
    from engine.events import from_record, to_record

    events = [*training_events(), finished(make_decoder())]
    live, read = TrainingView(), TrainingView()
    for event in events:
        live.apply(event)
        again = from_record(to_record(event))
        assert again is not None
        read.apply(again)
    assert live == read
    assert live.best is not None
    assert live.best.valid_perplexity == min(event.valid_perplexity for event in live.evaluations)
    assert live.epoch == 12
    assert not live.active


def test_a_failed_view_is_not_active() -> None:
    view = TrainingView()
    view.apply(Failed("out of memory"))
    assert view.phase == "failed"
    assert not view.active
