"""The dashboard of a training."""

from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, cast

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Footer, Rule

from engine.errors import LotrError
from engine.steering import Command
from lotr_tui.messages import TrainingChanged
from lotr_tui.screens.confirm import Confirm
from lotr_tui.screens.open_runs import open_runs, play_run
from lotr_tui.theme import MUTED
from lotr_tui.training_view import TrainingView
from lotr_tui.widgets.perplexity_chart import PerplexityChart
from lotr_tui.widgets.samples import Samples
from lotr_tui.widgets.status_bar import StatusBar
from lotr_tui.widgets.training_figures import TrainingFigures

if TYPE_CHECKING:
    from lotr_tui.app import LotrApp


class TrainScreen(Screen[None]):
    """Curve, figures and samples of a training that goes on, or has ended. Stays until it is closed."""

    AUTO_FOCUS = ""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "stop", "stop training", id="train.stop", tooltip="End the training; the best model is kept"),
        Binding("p", "play", "play with it", id="train.play", tooltip="Prompt the model as it stands"),
        Binding("ctrl+o", "runs", "runs", id="train.runs", tooltip="All runs: play with one, compare, tidy up"),
        Binding("q,escape", "close", "close", id="train.close", tooltip="Leave the dashboard"),
        Binding("ctrl+c", "stop", "stop training", show=False, id="train.interrupt"),
    ]

    def __init__(
        self,
        view: TrainingView,
        steer: Callable[[Command], None] | None = None,
        *,
        closes_app: bool = False,
        follows: bool = False,
    ) -> None:
        """Show `view`; `closes_app` where closing the dashboard is leaving the program.

        `follows` where another process trains: it is asked through `steer`, and leaving stops nothing.
        """
        super().__init__()
        self._view = view
        self._steer = steer
        self._closes_app = closes_app
        self._follows = follows

    @property
    def lotr(self) -> "LotrApp":
        """The app, with its own type."""
        return cast("LotrApp", self.app)

    def compose(self) -> ComposeResult:
        """Status, chart beside samples (or over them), figures, keys."""
        yield StatusBar(id="status")
        yield Rule(line_style="solid")
        yield TrainingFigures(self._view, id="figures")
        with Horizontal(id="body"):
            yield PerplexityChart(id="chart")
            yield Samples(id="samples")
        yield Footer(show_command_palette=False, compact=True)

    def on_mount(self) -> None:
        """Show what is known already."""
        self._show(self._view)

    def on_training_changed(self, message: TrainingChanged) -> None:
        """The training went on."""
        self._show(message.view)

    def action_stop(self) -> None:
        """Stop the training, after asking."""
        if self._follows:
            self.app.push_screen(Confirm("Ask the training to save and stop?"), self._ask_to_stop)
            return
        if not self.lotr.is_training:
            self.notify("No training is going on.")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.lotr.stop_training()
                self.notify("Stopping at the next update; the best model is kept.")

        self.app.push_screen(Confirm("Stop the training? The best model so far is kept."), answered)

    def _ask_to_stop(self, yes: bool | None) -> None:
        if not yes or self._steer is None:
            return
        try:
            self._steer(Command("stop"))
        except LotrError as error:
            self.notify(str(error), severity="warning", markup=False)
        else:
            self.notify("Asked to save and stop.")

    def action_play(self) -> None:
        """To the session, with the model as it stands."""
        if not self._view.evaluations:
            self.notify("There is no model yet; it comes with the first evaluation.")
            return
        if self._follows and self._view.started:
            play_run(self.lotr, self._view.started.run)
            return
        if self._closes_app:
            from lotr_tui.screens.play import PlayScreen

            self.app.push_screen(PlayScreen.learning(self._view, self.lotr.runs_dir, self.lotr.pace))
        else:
            self.dismiss()

    def action_runs(self) -> None:
        """All runs."""
        open_runs(self.lotr)

    async def action_close(self) -> None:
        """Leave the dashboard; where that is leaving the program, ask while a training goes on."""
        if not self._closes_app:
            self.dismiss()
        elif self._follows or not self.lotr.is_training:
            await self.app.action_quit()
        else:
            self.app.push_screen(Confirm("Stop the training and leave? The best model so far is kept."), self._leave)

    def _leave(self, yes: bool | None) -> None:
        if yes:
            self.call_later(self.app.action_quit)

    def _show(self, view: TrainingView) -> None:
        self._view = view
        self.query_one("#status", StatusBar).show(self._title(view), self._state(view))
        self.query_one("#figures", TrainingFigures).show(view)
        self.query_one("#chart", PerplexityChart).show(view)
        self.query_one("#samples", Samples).show(view)

    def _title(self, view: TrainingView) -> Content:
        parts: list[str | tuple[str, str]] = [("lotr-tui", "bold $accent"), "  "]
        if view.started:
            started = view.started
            parts.append((started.run, "bold"))
            parts.append(
                (
                    f" · {started.parameters:,} parameters · {started.vocabulary:,} words"
                    f" · {started.train_tokens:,} tokens · {started.device}",
                    MUTED,
                )
            )
        else:
            parts.append(("training", "bold"))
        return Content.assemble(*parts)

    def _state(self, view: TrainingView) -> Content:
        if view.notice:
            return Content.styled(view.notice, "$warning")
        if view.phase == "failed":
            return Content.styled("failed", "bold $error")
        if view.phase == "finished":
            return Content.styled("finished · p plays with it", "bold $accent")
        return Content.styled(view.phase, MUTED)
