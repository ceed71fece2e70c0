"""Dashboard of a training in this process."""

from engine.control import ControlCommand
from lotr_tui.screens.dashboard.sample_timeline import SampleTimeline
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.screens.dialogs.confirm import ConfirmDialog
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.widgets.key_footer import KeyFooter
from tests.support.app import FakeJob, finished, make_decoder, training_events
from tests.support.dashboard import dashboard_text
from tests.support.pilot import MakeApp, notices, text_of, until


async def test_metrics_baselines_and_samples_are_shown(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()).release())
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        text = dashboard_text(app)
        for figure in ("tiny-test", "752,239 parameters", "Kneser-Ney 90.8", "unigram 150.9", "valid 72.5", "9,800"):
            assert figure in text
        sample = text_of(app.screen.query_one(SampleTimeline))
        assert "epoch 12.0 · valid 72.5 · best" in sample
        assert "bilbo baggins is a friend of mine 12" in sample


async def test_preparation_is_shown_before_the_first_step(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()).release(1))
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "computing the unigram and 5-gram baselines" in dashboard_text(app))


async def test_stop_asks_for_confirmation(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release(5)
    app = make_app(job=job)
    async with app.run_test(size=(80, 24)) as pilot:
        for answer in ("n", "y"):
            assert app.is_training
            assert not job.stopped.is_set()
            await pilot.press("s")
            await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
            await pilot.press(answer)
            await pilot.pause()
        assert job.stopped.wait(1)


async def test_dashboard_stays_after_the_end_and_p_opens_a_session(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob([*training_events(), finished(make_decoder(5))]).release())
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "finished" in dashboard_text(app))
        assert "test 74.1" in dashboard_text(app)
        assert isinstance(app.screen, DashboardScreen)
        await pilot.press("p")
        await pilot.pause()
        assert isinstance(app.screen, SessionScreen)
        assert "valid 72.5" in text_of(app.screen.query_one("#status"))


async def test_control_keys_disappear_after_the_end(make_app: MakeApp) -> None:
    job = FakeJob([*training_events(), finished(make_decoder(5))]).release(5)
    app = make_app(job=job)
    control_actions = {
        "toggle_pause",
        "stop_training",
        "send_command('checkpoint')",
        "send_command('detach')",
        "change_prompt",
        "halve_lr",
    }
    async with app.run_test(size=(160, 45)) as pilot:

        def visible_actions() -> set[str]:
            return {hint.binding.action for hint in app.screen.query_one(KeyFooter).visible_keys()}

        await until(pilot, lambda: control_actions <= visible_actions())
        job.release()
        await until(pilot, lambda: not control_actions & visible_actions())
        assert {"open_session", "choose_model", "close"} <= visible_actions()
        await pilot.press("s", "ctrl+c")
        await pilot.pause()
        assert isinstance(app.screen, DashboardScreen)


async def test_session_needs_a_model(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()).release(1))
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("p")
        await pilot.pause()
        assert isinstance(app.screen, DashboardScreen)
        assert notices(app) == "No model yet. The first evaluation saves one."


async def test_failure_is_shown_as_text(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()[:9], failure=RuntimeError("no room [left]")).release())
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "failed: RuntimeError: no room [left]" in dashboard_text(app))
        assert not app.is_training


async def test_each_control_key_sends_its_command(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release(8)
    app = make_app(job=job)
    async with app.run_test(size=(160, 45)) as pilot:

        def status() -> str:
            return text_of(app.screen.query_one("#status"))

        await until(pilot, lambda: "tiny-test" in status())
        await pilot.press("space")
        await until(pilot, lambda: "paused" in status())
        await pilot.press("space")
        await until(pilot, lambda: "training" in status())
        await pilot.press("l", "l")
        await until(pilot, lambda: "lr × 0.25" in status())
        await pilot.press("L")
        await until(pilot, lambda: "lr ×" not in status())
        await pilot.press("c")
        await until(pilot, lambda: "saved at 7" in status())
        await pilot.press("d")
        await until(pilot, lambda: "detached" in status())
    assert job.commands == [
        ControlCommand("pause"),
        ControlCommand("resume"),
        ControlCommand("lr", "0.5"),
        ControlCommand("lr", "0.25"),
        ControlCommand("lr", "1"),
        ControlCommand("checkpoint"),
        ControlCommand("detach"),
    ]


async def test_footer_shows_the_pane_key_after_the_terminal_became_narrow(make_app: MakeApp) -> None:
    app = make_app(job=FakeJob(training_events()).release())
    async with app.run_test(size=(120, 35)) as pilot:
        await until(pilot, lambda: "epoch 12.0/12" in dashboard_text(app))
        painted: list[str] = []
        footer = app.screen.query_one(KeyFooter)
        render = footer.render
        footer.render = lambda: painted.append(render().plain) or render()  # type: ignore[method-assign,func-returns-value]
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: bool(painted))
        assert " pane" in painted[-1]
