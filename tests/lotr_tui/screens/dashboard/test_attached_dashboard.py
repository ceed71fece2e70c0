"""Dashboard of a run that another process trains: chart, samples, log, panes and problems."""

from contextlib import asynccontextmanager

import pytest
from textual.app import ComposeResult

from engine.control import ControlCommand
from engine.errors import RunError
from engine.events import Checkpointed, CommandApplied, Diagnosed, Evaluated, Finished, Resume, Warned
from engine.runtime.hardware import GpuStats, MachineStats
from lotr_tui.messages import TrainingChanged
from lotr_tui.monitor.hardware_history import MachineHistory
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.chart import TrainingChart
from lotr_tui.screens.dashboard.diagnosis_banner import DiagnosisBanner
from lotr_tui.screens.dashboard.log_pane import LogPane
from lotr_tui.screens.dashboard.sample_timeline import SampleTimeline
from lotr_tui.screens.dashboard.screen import DashboardScreen
from lotr_tui.screens.dashboard.tiles import MAX_LINES, MetricTiles
from lotr_tui.screens.dialogs.confirm import ConfirmDialog
from lotr_tui.session.settings import SettingsStore
from tests.support.app import ThemedApp, finished, make_decoder, training_events
from tests.support.metrics import view_of
from tests.support.pilot import lines_of, notices, text_of, until


@asynccontextmanager
async def attach(make_host, view, send_command=lambda command: None, size=(160, 45)):
    """Show the dashboard of a run."""
    app = make_host()
    screen = DashboardScreen(view, send_command, attached=True)
    async with app.run_test(size=size) as pilot:
        app.push_screen(screen)
        await until(pilot, lambda: screen.query("#chart") and screen.query_one("#chart").size.height > 0)
        yield app, pilot, screen


def status_text(app):
    return text_of(app.screen.query_one("#status"))


def log_text(app):
    return "\n".join(line.rstrip() for line in lines_of(app.screen.query_one(LogPane)).splitlines())


async def test_a_command_is_pending_until_applied_and_a_refused_one_is_reported(make_host):
    commands, refusals = [], []

    def send(command):
        if refusals:
            raise RunError(refusals.pop())
        commands.append(command)

    view = view_of(training_events())
    async with attach(make_host, view, send, size=(80, 24)) as (app, pilot, screen):
        await pilot.press("space")
        assert "pausing …" in status_text(app)
        await pilot.press("space")
        assert "resuming …" in status_text(app)
        assert commands == [ControlCommand("pause"), ControlCommand("resume")]
        for command in commands:
            view.apply(CommandApplied(1, 1.0, command.kind, ""))
        screen.post_message(TrainingChanged(view, []))
        await until(pilot, lambda: "following" in status_text(app))
        refusals.append("only its owner can control [this] run")
        await pilot.press("space")
        assert notices(app) == "only its owner can control [this] run"
        assert "following" in status_text(app)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, ConfirmDialog))
        await pilot.press("n")
        del commands[:]
        view.apply(finished(make_decoder()))
        screen.post_message(TrainingChanged(view, []))
        await until(pilot, lambda: "finished" in status_text(app))
        await pilot.press("space", "c", "d", "l", "s")
        assert app.screen is screen
        assert not commands
        await pilot.press("q")  # without a question
        await until(pilot, lambda: not isinstance(app.screen, (DashboardScreen, ConfirmDialog)))


async def test_the_cursor_moves_over_samples_and_steps_and_new_ones_leave_it(make_host):
    view = view_of(training_events(10))
    async with attach(make_host, view) as (_app, pilot, screen):
        samples, chart = screen.query_one(SampleTimeline), screen.query_one(TrainingChart)

        def legend():
            return chart.render_line(0).text

        assert "latest" in text_of(samples)
        assert "memory" not in screen.query_one(MetricTiles).render_line(0).text  # the machine of another process
        await pilot.press("left", "left")
        assert "a friend of mine 8" in text_of(samples)
        assert "epoch 8.0" in text_of(samples).splitlines()[0]
        assert f"valid {view.evaluations[8].valid_perplexity:.1f}" in legend()
        for event in training_events(12)[-12:]:
            view.apply(event)
        screen.show_view(view)
        assert "a friend of mine 8" in text_of(samples)
        assert "epoch 8.00" in legend()
        for keys, sample, shown in (
            (("end",), "latest", "● best"),
            (("comma",), "a friend of mine 11", "epoch 11.75"),
            (("full_stop", "full_stop"), "latest", "● best"),
            (("home", "left"), "1 of 13", "epoch 0.00"),
        ):
            await pilot.press(*keys)
            assert sample in text_of(samples)
            assert shown in legend()
        await pilot.click(chart, offset=(7 + (chart.size.width - 6) // 2, 9))
        epochs = view.steps.column("epoch")[view.steps.column("step") == chart.cursor_step]
        assert epochs == pytest.approx(5, abs=0.26)


async def test_chart_keys_change_range_axis_scale_and_smoothing(make_host):
    async with attach(make_host, view_of([*training_events(), finished(make_decoder())])) as (_app, pilot, screen):
        chart = screen.query_one(TrainingChart)
        bottom = chart.size.height - 1
        for keys, x_range in (
            ((), (0, 12)),
            (("plus", "plus"), (9, 12)),
            (("left_square_bracket",), (7.5, 10.5)),
            (("right_square_bracket", "minus"), (6, 12)),
            (("home",), (0, 6)),  # the range follows the cursor
            (("0",), (0, 12)),
        ):
            await pilot.press(*keys)
            assert chart.x_range == x_range
        log_scale_lines = [chart.render_line(row).text for row in range(bottom)]
        for axis in ("epochs", "steps", "time"):
            assert axis in chart.render_line(bottom).text
            await pilot.press("x")
        await pilot.press("y")
        assert [chart.render_line(row).text for row in range(bottom)] != log_scale_lines
        smoothing = []
        for _ in range(3):
            smoothing.append(chart.smoothing)
            await pilot.press("m")
        assert smoothing == [0.85, 0.97, 0.995]


async def test_narrow_terminal_shows_one_pane_at_a_time_and_the_log_follows_its_end(make_host):
    view = view_of([*training_events(30), Warned("the disk is full " * 10), CommandApplied(303, 30.0, "lr", "0.5")])
    async with attach(make_host, view, size=(60, 20)) as (app, pilot, screen):
        panes = (TrainingChart, SampleTimeline, MetricTiles, LogPane)
        for kind in (*panes, TrainingChart):
            assert [pane for pane in panes if screen.query_one(pane).region.area] == [kind]
            await pilot.press("f2")
            await pilot.pause()
        await pilot.resize_terminal(160, 45)
        await until(pilot, lambda: all(screen.query_one(pane).region.area for pane in panes))
        await until(pilot, lambda: "! the disk is full" in log_text(app))
        assert "epoch 30.0: valid 70.0, new best" in log_text(app)
        assert "› learning rate × 0.5" in log_text(app)
        await pilot.resize_terminal(160, 30)
        await until(pilot, lambda: "learning rate × 0.5" in log_text(app).splitlines()[-1])
        log = log_text(app)
        await pilot.press("pageup")
        scrolled_log = log_text(app)
        view.apply(Warned("and more"))
        screen.show_view(view)
        await pilot.pause()
        assert log_text(app) == scrolled_log != log


# Problems


def diagnosed(kind, message="a problem"):
    return Diagnosed(33, 3.0, kind, message, "a remedy")


async def test_a_dismissed_problem_uncovers_the_one_before_and_an_end_leaves_no_key_that_controls(make_host):
    SettingsStore().update(keymap={"dashboard.dismiss": "f9"})
    view = view_of([*training_events(3), diagnosed("idle_gpu", "first \x1b[31m"), diagnosed("forgetting")])
    async with attach(make_host, view, size=(80, 24)) as (_app, pilot, screen):
        banner = screen.query_one(DiagnosisBanner)
        assert text_of(banner).endswith("s stop  f9 dismiss  1 more")
        await pilot.press("f9")
        await pilot.pause()
        assert "first" in text_of(banner)
        assert "\x1b" not in text_of(banner)
        view.apply(Finished("done", "r", 3.0, 70.0, 71.0, 9.0))
        screen.show_view(view)
        await pilot.pause()
        assert text_of(banner).endswith("→ a remedy  f9 dismiss")
        await pilot.press("f9")
        assert view.current_diagnoses == []


BEST, WORSE = Evaluated(43, 4.0, 60.0, True, 9.0), Evaluated(43, 4.0, 160.0, False, 9.0)
LEARNING = ["rising_validation", "loss_spike", "forgetting", "vanishing_gradients"]


@pytest.mark.parametrize(
    ("kind", "event", "is_outdated"),
    [
        *((kind, BEST, True) for kind in LEARNING),
        *((kind, WORSE, False) for kind in LEARNING),
        ("unigram_model", BEST, True),
        ("unigram_model", Evaluated(43, 4.0, 149.0, True, 9.0), False),
        ("disk_space", Checkpointed(43, "resume.safetensors"), True),
        ("disk_space", Checkpointed(43, "model.safetensors"), False),
        ("disk_space", BEST, False),
        ("idle_gpu", BEST, False),
        ("loss_spike", Resume(33), True),
        ("loss_spike", Resume(34), False),
    ],
)
def test_later_events_outdate_a_problem(kind, event, is_outdated):
    view = view_of([*training_events(3), diagnosed(kind), event])
    assert (view.current_diagnoses == []) == is_outdated


# Tiles of this machine


async def test_tiles_share_their_lines_and_each_gpu_has_its_own_up_to_the_maximum():
    class TilesApp(ThemedApp):
        def compose(self) -> ComposeResult:
            yield MetricTiles()

    def stats(num_gpus):
        gpu = GpuStats(0.97, 41 * 2**30, 80 * 2**30, 67.0, 312.0)
        return MachineStats(612 * 2**20, 1.5, 16, (gpu,) * num_gpus)

    app = TilesApp()
    async with app.run_test(size=(200, 50)) as pilot:
        tiles = app.screen.query_one(MetricTiles)
        tiles.machine_history = MachineHistory()

        async def shown_lines():
            tiles.show(TrainingView())
            await pilot.pause()
            return [tiles.render_line(row).text.rstrip() for row in range(tiles.size.height)]

        for second in range(60):
            tiles.machine_history.add(float(second), stats(0))
        [line] = await shown_lines()
        assert 190 <= len(line) <= 198  # 6 tiles share what is left
        assert set(line.split("MiB")[1].split("CPU")[0].strip()) == {"─"}  # a history that does not change
        await pilot.resize_terminal(120, 35)
        await pilot.pause()
        first, second_line = await shown_lines()
        assert "tokens/s" in first
        assert "CPU" in second_line
        assert 110 <= len(second_line) <= 118
        await pilot.resize_terminal(200, 50)
        tiles.machine_history.add(61.0, stats(3))
        lines = await shown_lines()
        assert [line[:11] for line in lines[1:]] == ["GPU 0 use  ", "GPU 1 use  ", "GPU 2 use  "]
        assert len(set(map(len, lines[1:]))) == 1
        tiles.machine_history.add(62.0, stats(30))
        await shown_lines()
        assert tiles.size.height == MAX_LINES == 8
