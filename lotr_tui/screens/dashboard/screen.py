"""Dashboard of a training: chart, metrics, samples and log, with the commands that control the training."""

import math
import time
from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.timer import Timer
from textual.widgets import Rule

from engine.control import CommandKind, ControlCommand
from engine.errors import LotrError
from engine.events import Checkpointed, Evaluated, Sampled, Step
from engine.runs.loading import LoadedModel
from lotr_tui.messages import PaneSelected, TrainingChanged
from lotr_tui.monitor.pending_commands import PendingCommands
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.base import AppScreen
from lotr_tui.screens.dashboard.bindings import DASHBOARD_BINDINGS
from lotr_tui.screens.dashboard.chart import TrainingChart
from lotr_tui.screens.dashboard.diagnosis_banner import DiagnosisBanner
from lotr_tui.screens.dashboard.log_pane import LogPane
from lotr_tui.screens.dashboard.metrics import TrainingMetrics
from lotr_tui.screens.dashboard.prompt_dialog import SamplePromptDialog
from lotr_tui.screens.dashboard.sample_timeline import SampleTimeline
from lotr_tui.screens.dashboard.status import TrainingStatus
from lotr_tui.screens.dashboard.tiles import MetricTiles
from lotr_tui.screens.dialogs.confirm import confirm
from lotr_tui.screens.runs.open_run import choose_run, load_run
from lotr_tui.session.session_model import SessionModel
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.pane_tabs import PaneTabs

DASHBOARD_PANES = {"chart": "curve", "samples": "samples", "tiles": "metrics", "log": "log"}
"""Ids and labels of the panes, of which a narrow terminal shows one at a time."""
REFRESH_INTERVAL = 1.0
"""Seconds between two updates of frequently changing figures; over a slow line, an update of 3 KB takes time."""
FREQUENT_EVENTS = (Step, Evaluated, Sampled, Checkpointed)
"""Events that are shown at the next update; all other events are shown at once."""
MIN_LR_SCALE = 2.0**-10
CONTROL_ACTIONS = ("toggle_pause", "stop_training", "send_command", "change_prompt", "halve_lr", "reset_lr")
"""Actions that need an active training."""


class DashboardScreen(AppScreen[LoadedModel | None]):
    """Chart, metrics, samples and log of a training that is active or has ended.

    Above a session, the dashboard is dismissed with the model to use there, or with None to keep the model.
    """

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = DASHBOARD_BINDINGS

    def __init__(
        self,
        view: TrainingView,
        send_command: Callable[[ControlCommand], None],
        *,
        exit_on_close: bool = False,
        attached: bool = False,
    ) -> None:
        """Show a training, to which `send_command` sends a command or raises a `LotrError`.

        With `exit_on_close`, closing the dashboard exits the app. With `attached`, another process trains, so that
        closing the dashboard stops nothing.
        """
        super().__init__()
        self._view = view
        self._send_command = send_command
        self._exit_on_close = exit_on_close
        self._attached = attached
        self._pending_commands = PendingCommands()
        self._was_active = view.is_active
        self._refreshed_at = -math.inf
        self._refresh_timer: Timer | None = None

    def compose(self) -> ComposeResult:
        """Create the status bar, the tabs of a narrow terminal, the metrics, the panes and the footer."""
        yield TrainingStatus(id="status")
        yield PaneTabs(DASHBOARD_PANES, id="panes")
        yield Rule(line_style="solid")
        yield TrainingMetrics(self._view, id="metrics")
        yield MetricTiles(id="tiles")
        yield DiagnosisBanner(DASHBOARD_BINDINGS, self.app.format_binding_keys, id="diagnosis")
        with Horizontal(id="body"):
            yield TrainingChart(id="chart")
            with Vertical(id="side"):
                yield SampleTimeline(id="samples")
                yield LogPane(id="log")
        yield KeyFooter()

    def on_mount(self) -> None:
        """Show the first pane and the current state."""
        self._show_pane(next(iter(DASHBOARD_PANES)))
        self.show_view(self._view)

    def on_screen_suspend(self) -> None:
        """Stop to read the machine while another screen covers the dashboard."""
        self.query_one(MetricTiles).set_machine_monitoring(False)

    def on_screen_resume(self) -> None:
        """Show the current state again."""
        self.show_view(self._view)

    def on_training_changed(self, message: TrainingChanged) -> None:
        """Show rare events at once, and frequent events at most every `REFRESH_INTERVAL` seconds."""
        self._view = message.view
        self._pending_commands.discard_applied(message.view.applied_commands)
        self._chart.update_smoothing(message.view)
        if not all(isinstance(event, FREQUENT_EVENTS) for event in message.events):
            self._refresh_now()
        elif self._refresh_timer is None:
            delay = self._refreshed_at + REFRESH_INTERVAL - time.monotonic()
            self._refresh_timer = self.set_timer(max(0.001, delay), self._refresh_now)  # Textual divides by the delay

    def _refresh_now(self) -> None:
        if self._refresh_timer is not None:
            self._refresh_timer.stop()
            self._refresh_timer = None
        self._refreshed_at = time.monotonic()
        self.show_view(self._view)

    def show_view(self, view: TrainingView) -> None:
        """Show the state of the training in all panes."""
        self._view = view
        self._update_status()
        self.query_one(TrainingMetrics).show(view)
        tiles = self.query_one(MetricTiles)
        tiles.set_machine_monitoring(view.is_active and not self._attached)
        tiles.show(view)
        self.query_one(DiagnosisBanner).show(view.current_diagnoses, is_active=view.is_active)
        self._chart.show(view)
        self._samples.show(view)
        self.query_one(LogPane).show(view.log)

    def _update_status(self) -> None:
        if self._was_active != self._view.is_active:
            self._was_active = self._view.is_active
            self.refresh_bindings()
        self.query_one(TrainingStatus).update_status(
            self._view, self._pending_commands.commands, is_following=self._attached
        )

    @property
    def _chart(self) -> TrainingChart:
        return self.query_one(TrainingChart)

    @property
    def _samples(self) -> SampleTimeline:
        return self.query_one(SampleTimeline)

    # Panes

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Disable control actions after the training, and the pane key on wide terminals, which show all panes."""
        if action in CONTROL_ACTIONS:
            return self._view.is_active
        if action == "dismiss_diagnosis":
            return bool(self._view.current_diagnoses)
        return action != "next_pane" or self.has_class("-narrow")

    def action_next_pane(self) -> None:
        """Show the next pane."""
        panes = list(DASHBOARD_PANES)
        self._show_pane(panes[(panes.index(self.query_one(PaneTabs).pane) + 1) % len(panes)])

    def on_pane_selected(self, message: PaneSelected) -> None:
        """Show the clicked pane."""
        self._show_pane(message.pane)

    def _show_pane(self, pane: str) -> None:
        self.query_one(PaneTabs).pane = pane
        for name in DASHBOARD_PANES:
            self.set_class(name == pane, f"-pane-{name}")

    # Cursor: an update, or the latest one

    @on(TrainingChart.CursorMoved)
    def _select_clicked_step(self, message: TrainingChart.CursorMoved) -> None:
        self._select_step(message.step)

    def _select_step(self, step: int | None) -> None:
        """Move the cursor of the chart and the samples to an update; None follows the latest one."""
        self._chart.set_cursor(step)
        self._samples.set_cursor(step)

    def action_step_sample(self, offset: int) -> None:
        """Move the cursor by `offset` samples."""
        self._select_step(self._samples.adjacent_sample_step(offset))

    def action_move_cursor(self, offset: int) -> None:
        """Move the cursor by `offset` columns of the chart."""
        self._select_step(self._chart.step_at_column_offset(offset))

    def action_first_sample(self) -> None:
        """Move the cursor to the first sample."""
        self._select_step(self._view.samples[0].step if self._view.samples else None)

    def action_follow_latest(self) -> None:
        """Follow the latest update."""
        self._select_step(None)

    async def action_chart(self, action: str) -> None:
        """Run an action of the chart."""
        await self._chart.run_action(action)

    async def action_log(self, action: str) -> None:
        """Run an action of the log."""
        await self.query_one(LogPane).run_action(action)

    def action_dismiss_diagnosis(self) -> None:
        """Hide the problem that the banner shows; the log keeps it."""
        if diagnoses := self._view.current_diagnoses:
            self._view.dismiss_diagnosis(diagnoses[-1])
            self.show_view(self._view)
            self.refresh_bindings()

    # Control of the training

    def _request(self, command: ControlCommand) -> None:
        """Send a command, and show it as pending until the training has applied it."""
        if not self._view.is_active:
            self.notify("No training is active.")
            return
        try:
            self._send_command(command)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        self._pending_commands.add(command)
        self._update_status()

    def action_send_command(self, kind: CommandKind) -> None:
        """Send a command without a value."""
        self._request(ControlCommand(kind))

    def action_toggle_pause(self) -> None:
        """Pause or resume, depending on the last command sent."""
        self._request(ControlCommand("resume" if self._pending_commands.will_be_paused(self._view) else "pause"))

    def action_halve_lr(self) -> None:
        """Halve the learning rate, or the one last sent."""
        scale = self._pending_commands.lr_scale(self._view) / 2
        if scale >= MIN_LR_SCALE:
            self._request(ControlCommand("lr", f"{scale:g}"))

    def action_reset_lr(self) -> None:
        """Restore the scheduled learning rate."""
        self._request(ControlCommand("lr", "1"))

    def action_change_prompt(self) -> None:
        """Ask for another prompt of the samples."""

        def request(command: ControlCommand | None) -> None:
            if command is not None:
                self._request(command)

        self.app.push_screen(SamplePromptDialog(self._view.prompt), request)

    def action_stop_training(self) -> None:
        """Stop the training after a confirmation."""
        question = "Stop the training? The best model so far is kept."
        confirm(self.app, question, lambda: self._request(ControlCommand("stop")))

    # Navigation

    def action_open_session(self) -> None:
        """Open a session with the latest model."""
        if not self._view.evaluations:
            self.notify("No model yet. The first evaluation saves one.")
        elif self._attached and self._view.started:
            load_run(self, self._view.started.run, self._use_model)
        elif self._exit_on_close:
            self.app.open_training_session(self._view)
        else:
            self.dismiss()

    def action_choose_model(self) -> None:
        """Show the runs, and use the model of the selected run."""
        choose_run(self, lambda name: load_run(self, name, self._use_model))

    def _use_model(self, loaded: LoadedModel) -> None:
        if self._exit_on_close:
            self.app.open_session(SessionModel.from_loaded(loaded))
        else:
            self.dismiss(loaded)

    async def action_close(self) -> None:
        """Close the dashboard; one that was opened by a command quits, after a question if the app trains."""
        if self._exit_on_close:
            await self.app.action_quit()
        else:
            self.dismiss()
