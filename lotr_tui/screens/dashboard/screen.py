"""The dashboard of a training."""

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Rule

from engine.control import Command, What
from engine.errors import LotrError
from engine.events import Checkpointed, Evaluated, Sampled, Step
from engine.runs.store import LoadedModel
from lotr_tui.messages import PaneChosen, TrainingChanged
from lotr_tui.monitor.pending_commands import Asked
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.screens.dashboard.bindings import TRAIN_KEYS
from lotr_tui.screens.dashboard.chart import TrainingChart
from lotr_tui.screens.dashboard.figures import TrainingFigures
from lotr_tui.screens.dashboard.log_pane import LogPane
from lotr_tui.screens.dashboard.prompt_dialog import AskPrompt
from lotr_tui.screens.dashboard.sample_timeline import SampleTimeline
from lotr_tui.screens.dashboard.status import TrainingStatus
from lotr_tui.screens.dashboard.tiles import Tiles
from lotr_tui.screens.dialogs.confirm import Confirm
from lotr_tui.screens.runs.open_run import load_run, open_runs
from lotr_tui.session.player import Player
from lotr_tui.textual_fixes.screen import Steady
from lotr_tui.widgets.keys_footer import KeysFooter
from lotr_tui.widgets.pane_tabs import PaneTabs

if TYPE_CHECKING:
    from lotr_tui.app import LotrApp

PANES = {"chart": "curve", "samples": "words", "tiles": "figures", "log": "log"}
SHOW_SECONDS = 1.0
"""Between two looks at figures that change all the time: over a slow line each is some 3 KB."""
OFTEN = (Step, Evaluated, Sampled, Checkpointed)
LOWEST_SHARE = 2.0**-10
STEERING = ("pause", "stop", "ask", "prompt", "lower", "full")
"""Actions that are for a training that goes on."""


class TrainScreen(Steady, Screen[LoadedModel | None]):
    """Curve, figures, samples and log of a training that goes on, or has ended. Stays until it is closed.

    Over a session it is dismissed with the model to play with there, or None.
    """

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = TRAIN_KEYS

    def __init__(
        self,
        view: TrainingView,
        steer: Callable[[Command], None],
        *,
        closes_app: bool = False,
        follows: bool = False,
    ) -> None:
        """Show `view`.

        Args:
            view: what is known of the training.
            steer: asks something of it; may raise a `LotrError`.
            closes_app: closing the dashboard is leaving the program.
            follows: another process trains, and closing stops nothing.
        """
        super().__init__()
        self._view = view
        self._steer = steer
        self._closes_app = closes_app
        self._follows = follows
        self._asked = Asked()
        self._was_active = view.active
        self._shown = -math.inf
        self._waiting: Timer | None = None

    @property
    def lotr(self) -> "LotrApp":
        """The app, with its own type."""
        return cast("LotrApp", self.app)

    def compose(self) -> ComposeResult:
        """Status, figures, then all panes at once, or on a narrow terminal one of them; keys."""
        yield TrainingStatus(id="status")
        yield PaneTabs(PANES, id="panes")
        yield Rule(line_style="solid")
        yield TrainingFigures(self._view, id="figures")
        yield Tiles(id="tiles")
        with Horizontal(id="body"):
            yield TrainingChart(id="chart")
            with Vertical(id="side"):
                yield SampleTimeline(id="samples")
                yield LogPane(id="log")
        yield KeysFooter()

    def on_mount(self) -> None:
        """Show what is known already."""
        self._show_pane(next(iter(PANES)))
        self._show(self._view)

    def on_screen_suspend(self) -> None:
        """Nobody looks."""
        self._tiles.read_machine(False)

    def on_screen_resume(self) -> None:
        """Somebody looks again."""
        self._show(self._view)

    def on_training_changed(self, message: TrainingChanged) -> None:
        """The training went on: news are shown at once, figures now and then."""
        self._view = message.view
        self._asked.take(message.view.steered)
        self._chart.keep_up(message.view)
        if not all(isinstance(event, OFTEN) for event in message.events):
            self._show_now()
        elif self._waiting is None:
            wait = self._shown + SHOW_SECONDS - time.monotonic()
            self._waiting = self.set_timer(max(0.001, wait), self._show_now)  # Textual divides by it

    def _show_now(self) -> None:
        if self._waiting is not None:
            self._waiting.stop()
            self._waiting = None
        self._shown = time.monotonic()
        self._show(self._view)

    def _show(self, view: TrainingView) -> None:
        self._view = view
        self._tell_state()
        self.query_one(TrainingFigures).show(view)
        self._tiles.read_machine(view.active and not self._follows)
        self._tiles.show(view)
        self._chart.show(view)
        self._samples.show(view)
        self._log.show(view.log)

    def _tell_state(self) -> None:
        if self._was_active != self._view.active:
            self._was_active = self._view.active
            self.refresh_bindings()
        self.query_one(TrainingStatus).tell(self._view, self._asked.waiting, follows=self._follows)

    @property
    def _chart(self) -> TrainingChart:
        return self.query_one(TrainingChart)

    @property
    def _samples(self) -> SampleTimeline:
        return self.query_one(SampleTimeline)

    @property
    def _tiles(self) -> Tiles:
        return self.query_one(Tiles)

    @property
    def _log(self) -> LogPane:
        return self.query_one(LogPane)

    # Panes

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """A training that has ended is not steered; on a wide terminal all panes are seen, so there is no next one."""
        if action in STEERING:
            return self._view.active
        return action != "next_pane" or self.has_class("-narrow")

    def action_next_pane(self) -> None:
        """The next of curve, words, figures, log."""
        panes = list(PANES)
        self._show_pane(panes[(panes.index(self.query_one(PaneTabs).pane) + 1) % len(panes)])

    def on_pane_chosen(self, message: PaneChosen) -> None:
        """A pane was clicked."""
        self._show_pane(message.pane)

    def _show_pane(self, pane: str) -> None:
        self.query_one(PaneTabs).pane = pane
        for name in PANES:
            self.set_class(name == pane, f"-pane-{name}")

    # The place that is looked at: an update, or the latest

    @on(TrainingChart.Placed)
    def _placed(self, message: TrainingChart.Placed) -> None:
        self._look_at(message.place)

    def _look_at(self, place: int | None) -> None:
        """Curve and samples go there together."""
        self._chart.mark(place)
        self._samples.mark(place)

    def action_sample(self, steps: int) -> None:
        """The sample so many on or back."""
        self._look_at(self._samples.neighbour(steps))

    def action_column(self, columns: int) -> None:
        """So many columns of the curve on or back."""
        self._look_at(self._chart.step_aside(columns))

    def action_first(self) -> None:
        """The first sample."""
        self._look_at(self._view.samples[0].step if self._view.samples else None)

    def action_latest(self) -> None:
        """Follow the latest."""
        self._look_at(None)

    # The curve and the log

    async def action_curve(self, action: str) -> None:
        """The curve is to be looked at in another way."""
        await self._chart.run_action(action)

    async def action_log(self, action: str) -> None:
        """The log is to be scrolled."""
        await self._log.run_action(action)

    # Steering

    def _ask(self, command: Command) -> None:
        """Ask the training; until it is done the state says so."""
        if not self._view.active:
            self.notify("No training is going on.")
            return
        try:
            self._steer(command)
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
            return
        self._asked.add(command)
        self._tell_state()

    def action_ask(self, what: What) -> None:
        """Ask for something that needs no more words."""
        self._ask(Command(what))

    def action_pause(self) -> None:
        """Pause, or go on, whatever was asked last."""
        self._ask(Command("go_on" if self._asked.paused(self._view) else "pause"))

    def action_lower(self) -> None:
        """Half the learning rate it is, or was asked to be."""
        share = self._asked.lr_share(self._view) / 2
        if share >= LOWEST_SHARE:
            self._ask(Command("lr", f"{share:g}"))

    def action_full(self) -> None:
        """The scheduled learning rate."""
        self._ask(Command("lr", "1"))

    def action_prompt(self) -> None:
        """Ask for another prompt."""

        def answered(command: Command | None) -> None:
            if command is not None:
                self._ask(command)

        self.app.push_screen(AskPrompt(self._view.prompt), answered)

    def action_stop(self) -> None:
        """Stop the training, after asking."""

        def answered(yes: bool | None) -> None:
            if yes:
                self._ask(Command("stop"))

        self.app.push_screen(Confirm("Stop the training? The best model so far is kept."), answered)

    # Leaving

    def action_play(self) -> None:
        """To the session, with the model as it stands."""
        from lotr_tui.screens.session.screen import PlayScreen

        if not self._view.evaluations:
            self.notify("There is no model yet; it comes with the first evaluation.")
        elif self._follows and self._view.started:
            load_run(self, self._view.started.run, self._play_run)
        elif self._closes_app:
            self.app.push_screen(PlayScreen.learning(self._view, self.lotr.runs_dir, self.lotr.pace))
        else:
            self.dismiss()

    def action_runs(self) -> None:
        """All runs."""
        open_runs(self, self._play_run)

    def _play_run(self, loaded: LoadedModel) -> None:
        from lotr_tui.screens.session.screen import PlayScreen

        if not self._closes_app:
            self.dismiss(loaded)
            return
        self.app.push_screen(PlayScreen(Player.of(loaded), self.lotr.runs_dir, self.lotr.pace))

    async def action_close(self) -> None:
        """Leave the dashboard; where that ends the program, ask while a training of this process goes on."""
        if not self._closes_app:
            self.dismiss()
        elif self._follows or not self.lotr.is_training:
            await self.app.action_quit()
        else:
            self.app.push_screen(Confirm("Stop the training and leave? The best model so far is kept."), self._leave)

    def _leave(self, yes: bool | None) -> None:
        if yes:
            self.call_later(self.app.action_quit)
