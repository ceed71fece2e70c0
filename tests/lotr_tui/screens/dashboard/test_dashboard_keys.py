"""The keys of the dashboard, its panes, and what is in step with what."""

import math
from collections.abc import Callable

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from engine.control import Command
from engine.errors import RunError
from engine.events import Finished, Resume, Started, Steered, Step, TrainingEvent, Warned
from lotr_tui.app import LotrApp
from lotr_tui.messages import TrainingChanged
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.chart import TrainingChart
from lotr_tui.screens.dashboard.log_pane import LogPane
from lotr_tui.screens.dashboard.prompt_dialog import AskPrompt
from lotr_tui.screens.dashboard.sample_timeline import SampleTimeline
from lotr_tui.screens.dashboard.screen import TrainScreen
from lotr_tui.screens.dashboard.tiles import Tiles
from lotr_tui.screens.dialogs.confirm import Confirm
from tests.lotr_tui.conftest import FakeJob, finished, make_decoder, training_events
from tests.lotr_tui.screens.session.test_session_screen import text_of, until

MakeApp = Callable[..., LotrApp]


def view_of(events: list[TrainingEvent]) -> TrainingView:
    view = TrainingView()
    for event in events:
        view.apply(event)
    return view


async def follow(
    pilot: Pilot[None], view: TrainingView, steer: Callable[[Command], None] = lambda command: None
) -> TrainScreen:
    """The dashboard of a run that another process trains."""
    screen = TrainScreen(view, steer, follows=True)
    pilot.app.push_screen(screen)
    await until(pilot, lambda: screen.query("#chart") and screen.query_one("#chart").size.height > 0)
    return screen


def state_of(app: LotrApp) -> str:
    return text_of(app.screen.query_one("#status"))


def legend_of(app: LotrApp) -> str:
    return app.screen.query_one(TrainingChart).render_line(0).text


def log_of(app: LotrApp) -> str:
    log = app.screen.query_one(LogPane)
    return "\n".join(log.render_line(row).text.rstrip() for row in range(log.size.height))


async def test_each_steering_key_asks_for_its_command(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release(8)
    app = make_app(job=job)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "epoch 1.0: valid" in log_of(app) or "tiny-test" in state_of(app))
        await pilot.press("space")
        await until(pilot, lambda: "paused" in state_of(app))
        await pilot.press("space")
        await until(pilot, lambda: "training" in state_of(app))
        await pilot.press("l", "l")
        await until(pilot, lambda: "lr × 0.25" in state_of(app))
        await pilot.press("L")
        await until(pilot, lambda: "lr ×" not in state_of(app))
        await pilot.press("c")
        await until(pilot, lambda: "saved at 7" in state_of(app))
        await pilot.press("d")
        await until(pilot, lambda: "detached" in state_of(app))
    assert job.commands == [
        Command("pause"),
        Command("go_on"),
        Command("lr", "0.5"),
        Command("lr", "0.25"),
        Command("lr", "1"),
        Command("checkpoint"),
        Command("detach"),
    ]


async def test_what_was_asked_is_said_until_it_is_done(make_app: MakeApp) -> None:
    asked: list[Command] = []
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        view = view_of(training_events())
        screen = await follow(pilot, view, asked.append)
        await pilot.press("space")
        assert "pausing …" in state_of(app)
        await pilot.press("space")
        assert asked == [Command("pause"), Command("go_on")]
        for command in asked:
            view.apply(Steered(1, 1.0, command.what, ""))
        screen.post_message(TrainingChanged(view, []))
        await until(pilot, lambda: "following" in state_of(app))


async def test_the_prompt_is_asked_for_and_a_bad_one_is_refused_in_the_dialog(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release(8)
    app = make_app(job=job)
    async with app.run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: "tiny-test" in state_of(app))
        await pilot.press("e")
        await until(pilot, lambda: isinstance(app.screen, AskPrompt))
        field = app.screen.query_one(Input)
        assert field.value == "bilbo baggins is"
        field.value = "  "
        await pilot.press("enter")
        await pilot.pause()
        assert "a prompt to sample is one line" in text_of(app.screen.query_one("#problem"))
        field.value = "the [lamp]"
        await pilot.press("enter")
        await until(pilot, lambda: bool(job.commands))
        assert job.commands == [Command("prompt", "the [lamp]")]
        await pilot.press("f2", "f2", "f2")
        await until(pilot, lambda: "the prompt is now “the [lamp]”" in log_of(app))


async def test_a_run_that_cannot_be_steered_says_so(make_app: MakeApp) -> None:
    def refuse(command: Command) -> None:
        raise RunError("only its owner can steer [this] run")

    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await follow(pilot, view_of(training_events()), refuse)
        await pilot.press("space")
        assert [notice.message for notice in app._notifications] == ["only its owner can steer [this] run"]
        assert "following" in state_of(app)
        assert not screen._asked.waiting


async def test_who_follows_leaves_without_being_asked(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await follow(pilot, view_of(training_events()))
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        await pilot.press("n")
        await pilot.press("q")
        await until(pilot, lambda: not isinstance(app.screen, (TrainScreen, Confirm)))


async def test_nothing_is_asked_of_a_training_that_has_ended(make_app: MakeApp) -> None:
    asked: list[Command] = []
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        await follow(pilot, view_of([*training_events(), finished(make_decoder())]), asked.append)
        await pilot.press("space", "c", "d", "l", "s")
        assert isinstance(app.screen, TrainScreen)
        assert not asked
        assert "finished" in state_of(app)


async def test_arrows_scrub_the_samples_and_the_cursor_goes_with_them(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        view = view_of(training_events())
        screen = await follow(pilot, view)
        words = screen.query_one(SampleTimeline)
        assert "latest" in text_of(words)
        await pilot.press("left", "left")
        assert "a friend of mine 10" in text_of(words)
        assert "epoch 10.0" in text_of(words).splitlines()[0]
        assert "epoch 10.00" in legend_of(app)
        assert f"valid {view.evaluations[10].valid_perplexity:.1f}" in legend_of(app)
        await pilot.press("right", "right")
        assert "latest" in text_of(words)
        assert "● best" in legend_of(app)
        await pilot.press("home")
        assert "the of a the" in text_of(words)
        await pilot.press("left")
        assert "1 of 13" in text_of(words)
        await pilot.press("end")
        assert "latest" in text_of(words)


async def test_the_cursor_moves_over_the_reports_and_the_samples_go_with_it(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        view = view_of(training_events())
        screen = await follow(pilot, view)
        await pilot.press("comma")
        assert "epoch 11.75" in legend_of(app)
        assert "raw" in legend_of(app)
        assert "a friend of mine 11" in text_of(screen.query_one(SampleTimeline))
        await pilot.press("full_stop", "full_stop")
        assert "● best" in legend_of(app)
        chart = screen.query_one(TrainingChart)
        await pilot.click(chart, offset=(7 + (chart.size.width - 6) // 2, 9))
        place = chart._place
        assert place is not None
        assert view.steps.column("epoch")[view.steps.column("step") == place] == pytest.approx(6, abs=0.26)


async def test_new_samples_do_not_move_who_looks_back(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        view = view_of(training_events(8))
        screen = await follow(pilot, view)
        await pilot.press("left")
        for event in training_events(12)[-18:]:
            view.apply(event)
        screen._show(view)
        assert "a friend of mine 7" in text_of(screen.query_one(SampleTimeline))
        assert "epoch 7.00" in legend_of(app)


async def test_the_keys_of_the_curve(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        screen = await follow(pilot, view_of([*training_events(), finished(make_decoder())]))
        chart = screen.query_one(TrainingChart)
        bottom = chart.size.height - 1

        def axis() -> str:
            return chart.render_line(bottom).text

        assert chart.part == (0, 12)
        await pilot.press("plus", "plus")
        assert chart.part == (9, 12)
        await pilot.press("left_square_bracket")
        assert chart.part == (7.5, 10.5)
        await pilot.press("right_square_bracket", "minus")
        assert chart.part == (6, 12)
        await pilot.press("home")  # the cursor is brought into sight
        assert chart.part[0] == 0
        await pilot.press("0")
        assert chart.part == (0, 12)
        assert "epochs" in axis()
        await pilot.press("x")
        assert "updates" in axis()
        await pilot.press("x")
        assert "time" in axis()
        assert "0:10" in axis()
        logarithmic = [chart.render_line(row).text for row in range(bottom)]
        await pilot.press("x", "y")
        assert "epochs" in axis()
        assert [chart.render_line(row).text for row in range(bottom)] != logarithmic
        shares = []
        for _ in range(3):
            shares.append(chart._smoothed.share)
            await pilot.press("m")
        assert shares == [0.85, 0.97, 0.995]


async def test_a_narrow_terminal_has_a_pane_at_a_time(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(60, 20)) as pilot:
        await follow(pilot, view_of(training_events()))
        panes = (TrainingChart, SampleTimeline, Tiles, LogPane)
        for kind in (*panes, TrainingChart):
            assert [pane for pane in panes if app.screen.query_one(pane).region.area] == [kind]
            await pilot.press("f2")
            await pilot.pause()
        await pilot.resize_terminal(160, 45)
        await until(pilot, lambda: all(app.screen.query_one(pane).region.area for pane in panes))


async def test_the_machine_is_read_only_while_a_training_of_this_process_goes_on(make_app: MakeApp) -> None:
    job = FakeJob(training_events()).release(8)
    app = make_app(job=job)
    async with app.run_test(size=(160, 45)) as pilot:
        await until(pilot, lambda: "tiny-test" in state_of(app))
        tiles = app.screen.query_one(Tiles)
        assert tiles._reader is not None
        reader = tiles._reader
        await pilot.press("d")
        await until(pilot, lambda: "detached" in state_of(app))
        assert tiles._reader is None
        assert reader.join(2)


async def test_of_another_process_only_the_record_is_shown(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        screen = await follow(pilot, view_of(training_events()))
        shown = screen.query_one(Tiles).render_line(0).text
        assert "tokens/s" in shown
        assert "memory" not in shown


async def test_the_log_tells_what_happened_and_stays_where_one_reads(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(160, 45)) as pilot:
        events = [*training_events(30), Warned("the disk is full " * 10), Steered(303, 30.0, "lr", "0.5")]
        view = view_of(events)
        screen = await follow(pilot, view)
        log = log_of(app)
        assert "epoch 30.0: valid 70.0, best so far" in log
        assert "! the disk is full" in log
        assert "› learning rate × 0.5 from here on" in log
        await pilot.resize_terminal(160, 30)
        await until(pilot, lambda: "× 0.5 from here on" in log_of(app).splitlines()[-1])
        log = log_of(app)
        await pilot.press("pageup")
        read = log_of(app)
        view.apply(Warned("and more"))
        screen._show(view)
        await pilot.pause()
        assert log_of(app) == read != log


def test_the_view_knows_what_was_asked_and_what_a_resume_takes_back() -> None:
    view = view_of(training_events(3))
    assert (view.prompt, view.lr_share, view.paused, view.saved_step) == ("bilbo baggins is", 1, False, None)
    for what, value in (("pause", ""), ("lr", "0.5"), ("prompt", "the lamp"), ("go_on", ""), ("pause", "")):
        view.apply(Steered(33, 3.0, what, value))
    assert (view.prompt, view.lr_share, view.paused) == ("the lamp", 0.5, True)
    view.apply(Finished("detached", "r", 3.0, 70.0, math.nan, 6.0))
    assert not view.paused
    view.apply(Resume(20))
    assert (view.prompt, view.lr_share, view.paused, view.resumes) == ("bilbo baggins is", 1, False, 1)
    assert view.phase == "training"
    assert [line.text for line in view.log][-2:] == ["epoch 1.0: valid 130.0, best so far", "goes on from update 20"]
    view.apply(Step(20, 2.0, 90.0, 0.1, 0.1, 9.0, 4.0, 2.0))
    assert view.steps.column("step").tolist()[-2:] == [13, 20]


def test_a_damaged_record_is_shown_as_far_as_it_goes() -> None:
    view = view_of([Started("r\x1b[31m", "tiny", 1, 2, 3, 4, 5, "cpu\n", "", math.nan, math.inf)])
    view.apply(Step(3, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan))
    view.apply(Steered(3, math.nan, "lr", "much"))
    assert (view.epoch, view.seconds, view.best) == (0, 0, None)
    assert all(character.isprintable() for line in view.log for character in line.text)
