"""The App: its screens, and the one training that may go on behind them."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import App
from textual.binding import Binding, BindingType
from textual.screen import Screen

from engine.config import Config
from engine.errors import ConfigError, UnusableInput, nearest
from engine.events import Failed, Step, TrainingEvent
from engine.worker import Cancellation, Worker
from lotr_tui.messages import TrainingChanged
from lotr_tui.session import Player, open_player
from lotr_tui.theme import SHIRE
from lotr_tui.training_view import TrainingView

if TYPE_CHECKING:
    from engine.combine import Combination
    from engine.jobs import TrainingJob

HERE = Path(__file__).parent
PACE = 25.0
"""Words a second on the screen: a little faster than one reads aloud."""
POLL_SECONDS = 0.5
QUIT_SECONDS = 0.8
"""How long leaving waits for a training to note that it was stopped."""


class LotrApp(App[None]):
    """Play with a model, or watch one being trained; both may go on together."""

    CSS_PATH = [HERE / "app.tcss", HERE / "screens" / "play.tcss", HERE / "screens" / "train.tcss"]  # noqa: RUF012
    TITLE = "lotr-tui"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "toggle_help", "help", id="app.help", tooltip="Show all keys"),
        Binding("ctrl+q", "quit", "quit", id="app.quit", tooltip="Leave", priority=True),
    ]

    def __init__(
        self,
        *,
        player: Player | None = None,
        job: "TrainingJob | None" = None,
        runs_dir: Path | None = None,
        pace: float = PACE,
        theme: str | None = None,
    ) -> None:
        """Start as a session with `player`, or as the dashboard of `job`.

        Raises:
            ConfigError: there is no such theme.
        """
        super().__init__()
        self.runs_dir = runs_dir
        self.pace = pace
        self.training: TrainingView | None = None
        self._player = player
        self._job = job
        self._worker: Worker[TrainingEvent] | None = None
        self.register_theme(SHIRE)
        if theme is not None and theme not in self.available_themes:
            raise ConfigError(f"unknown theme {theme!r}{nearest(theme, self.available_themes)}")
        self.theme = theme or SHIRE.name

    def get_default_screen(self) -> Screen[None]:
        """The session, or the dashboard."""
        if self._job is not None:
            from lotr_tui.screens.train import TrainScreen

            return TrainScreen(TrainingView(note="starting"), closes_app=True)
        from lotr_tui.screens.play import PlayScreen

        assert self._player is not None
        return PlayScreen(self._player, self._player.run, self.runs_dir, self.pace)

    def on_mount(self) -> None:
        """Start the training the app was opened for."""
        self._poll_timer = self.set_interval(POLL_SECONDS, self._poll_training, pause=True)
        if self._job is not None:
            self._start(Worker("training", self._job.events, droppable=_is_step))

    def start_training(self, config: Config) -> None:
        """Train in a thread of this process; screens are told how it goes."""
        runs_dir = self.runs_dir

        def source(cancellation: Cancellation) -> Iterator[TrainingEvent]:
            from engine.events import Preparing
            from engine.jobs import prepare_job

            yield Preparing("reading the corpus")
            yield from prepare_job(config, folder=runs_dir).events(cancellation)

        self._start(Worker("training", source, droppable=_is_step))

    def stop_training(self) -> None:
        """Ask the training to end; the best model is kept."""
        if self._worker is not None:
            self._worker.cancel()

    @property
    def is_training(self) -> bool:
        """Whether a training is going on."""
        return self._worker is not None

    def on_unmount(self) -> None:
        """However the app ends: a training is stopped, its best model kept."""
        if self._worker is not None:
            self._worker.cancel()
            self._worker.join(QUIT_SECONDS)

    def action_toggle_help(self) -> None:
        """Show or hide the panel of all keys, which Textual makes from the bindings."""
        if self.screen.query("HelpPanel"):
            self.action_hide_help_panel()
        else:
            self.action_show_help_panel()

    def _start(self, worker: Worker[TrainingEvent]) -> None:
        self._worker = worker.start()
        self.training = TrainingView()
        self._poll_timer.resume()
        self._poll_training()

    def _poll_training(self) -> None:
        """Take in what the worker has told, and pass it on to the screens."""
        worker, view = self._worker, self.training
        if worker is None or view is None:
            return
        ended = not worker.running  # asked before draining, so that no last event is missed
        events = worker.drain()
        if ended:
            self._worker = None
            self._poll_timer.pause()
            if worker.failure is not None:
                events.append(_failed(worker.failure))
        for event in events:
            view.apply(event)
        if events:
            for screen in self.screen_stack:
                screen.post_message(TrainingChanged(view, events))


def open_session(
    runs: Sequence[str] = (),
    runs_dir: Path | None = None,
    options: "Combination | None" = None,
    pace: float = PACE,
    theme: str | None = None,
    *,
    mouse: bool = True,
) -> None:
    """Play with the model of `runs` (none: the bundled one) until the person leaves.

    Raises:
        UnusableInput: there is no terminal, no such run or theme, or the run is damaged.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UnusableInput("the interactive session needs a terminal; use `lotr-tui generate PROMPT` instead")
    player = open_player(runs, runs_dir, options)
    LotrApp(player=player, runs_dir=runs_dir, pace=pace, theme=theme).run(mouse=mouse)


def _is_step(event: TrainingEvent) -> bool:
    return isinstance(event, Step)


def _failed(error: BaseException) -> Failed:
    from engine.errors import LotrError, printable

    return Failed(str(error) if isinstance(error, LotrError) else printable(f"{type(error).__name__}: {error}"))
