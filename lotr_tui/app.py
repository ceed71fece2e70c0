"""The App: its screens, the settings kept, and the one training that may go on behind them."""

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.command import Provider
from textual.dom import DOMNode
from textual.filter import LineFilter
from textual.screen import Screen, SystemModalScreen
from textual.theme import Theme

from engine.control import Command
from engine.errors import ConfigError, LotrError, UnusableInput, nearest
from engine.runtime.worker import Cancellation, Worker
from lotr_tui.messages import TrainingChanged
from lotr_tui.session.settings import KeptSettings
from lotr_tui.textual_fixes.app import SteadyApp
from lotr_tui.theme import SHIRE, SHIRE_LIGHT, Colourless

if TYPE_CHECKING:  # with numpy, which the first paint does without
    from engine.config import Config
    from engine.training.job import TrainingJob
    from lotr_tui.monitor.training_thread import OwnTraining
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.session.player import Player

HERE = Path(__file__).parent
POLL_SECONDS = 0.5
QUIT_SECONDS = 0.8
"""How long leaving waits, the screen still there, for a training to save and end."""
SAVE_SECONDS = 20.0
"""And how long once the screen is gone."""


def _commands() -> type[Provider]:
    from lotr_tui.commands import Commands  # not before the first paint

    return Commands


class LotrApp(SteadyApp):
    """Play with a model, or watch one being trained; both may go on together."""

    CSS_PATH = [  # noqa: RUF012
        HERE / "app.tcss",
        HERE / "screens" / "session" / "session.tcss",
        HERE / "screens" / "dashboard" / "dashboard.tcss",
    ]
    TITLE = "lotr-tui"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "toggle_help", "help", id="app.help", tooltip="Show all keys", priority=True),
        Binding(
            "ctrl+p", "command_palette", "palette", id="app.palette", tooltip="Every action, and themes", priority=True
        ),
        Binding("ctrl+q", "quit", "quit", id="app.quit", tooltip="Leave", priority=True),
    ]
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_commands}

    def __init__(
        self,
        *,
        player: "Player | None" = None,
        opening: "Callable[[], Player] | None" = None,
        job: "TrainingJob | None" = None,
        runs_dir: Path | None = None,
        pace: float | None = None,
        theme: str | None = None,
        kept: KeptSettings | None = None,
    ) -> None:
        """Start as a session with `player`, or as the dashboard of `job`.

        `opening` makes the player of a session that has none, in a thread and behind the first paint. `theme` and
        `pace` are for this session; without them the kept ones are used.

        Raises:
            ConfigError: there is no such theme.
        """
        super().__init__()
        self.runs_dir = runs_dir
        self._player = player
        self._opening = opening
        self._job = job
        self._own: OwnTraining | None = None  # what is known of it stays when it has ended
        self.is_training = False
        """Whether a training goes on in this process."""
        self.terminal_closed = False
        """Whether the terminal is gone; the training goes on without it."""
        self._told_to_end = False
        self._loop_here: asyncio.AbstractEventLoop | None = None  # once there is one
        self.kept = kept or KeptSettings()
        self.pace = self.kept.current.pace if pace is None else pace
        self.detached: Path | None = None
        """A run that another process is to go on with, once the app has ended."""
        self.farewell = ""
        """What there is to say when the screen is gone; "" if nothing."""
        self._unwritten = False
        self._clashes: set[str] = set()
        self._colourless = [Colourless()]
        self.register_theme(SHIRE)
        self.register_theme(SHIRE_LIGHT)
        if theme is not None and theme not in self.available_themes:
            raise ConfigError(f"unknown theme {theme!r}{nearest(theme, self.available_themes)}")
        chosen = theme or self.kept.current.theme
        self._notices = [self.kept.notice]
        if chosen not in self.available_themes:
            self._notices.append(f"unknown theme {chosen!r} in {self.kept.path}; {SHIRE.name} is used")
            chosen = SHIRE.name
        self.theme = self._theme_told = chosen

    def get_default_screen(self) -> Screen[Any]:
        """The session, or the dashboard."""
        if self._job is not None:
            from lotr_tui.monitor.training_view import TrainingView
            from lotr_tui.screens.dashboard.screen import TrainScreen

            return TrainScreen(TrainingView(note="starting"), self.steer, closes_app=True)
        from lotr_tui.screens.session.screen import PlayScreen

        return PlayScreen(self._player, self.runs_dir, self.pace, opening=self._opening)

    def on_mount(self) -> None:
        """Take the kept keys, say what is wrong with the settings, and start the training the app was opened for."""
        self.theme_changed_signal.subscribe(self, self._keep_theme)
        for notice in filter(None, self._notices):
            self.notify(notice, severity="warning", markup=False)
        if self.kept.current.keymap:
            self.set_keymap(dict(self.kept.current.keymap))
            self.call_after_refresh(self._check_keymap)
        self._poll_timer = self.set_interval(POLL_SECONDS, self._poll_training, pause=True)
        self._loop_here = asyncio.get_running_loop()
        if (job := self._job) is not None and (self.terminal_closed or not self._told_to_end):
            self._start(lambda: job, job.run.path if job.resumes else None)
        if self._told_to_end:
            self.exit()

    # The training of this process

    @property
    def training(self) -> "TrainingView | None":
        """What is known of the training, which goes on or has ended."""
        return None if self._own is None else self._own.view

    def start_training(self, config: "Config") -> None:
        """Train in a thread of this process; screens are told how it goes."""
        runs_dir = self.runs_dir

        def prepare() -> "TrainingJob":
            from engine.training.job import prepare_job

            return prepare_job(config, folder=runs_dir)

        self._start(prepare)

    def steer(self, command: Command) -> None:
        """Ask something of the training.

        Raises:
            LotrError: there is none, or it has not begun yet.
        """
        if self._own is None or not self.is_training:
            raise UnusableInput("no training is going on")
        self._own.steer(command)

    def stop_training(self) -> None:
        """Ask the training to save and end; the best model is kept."""
        if self._own is not None:
            self._own.stop()

    def on_unmount(self) -> None:
        """However the app ends: settings are written, a training is stopped, unless it outlives its terminal."""
        if self._unwritten:
            self.farewell = self.kept.keep()
        if self._own is not None and not self.terminal_closed:
            self._own.stop()
            if self._own.has_something_to_save:
                self._own.join(QUIT_SECONDS)

    def outlive_terminal(self) -> None:
        """When the app has ended: see the training to its end where the terminal was closed, else to its saving."""
        if self._own is None:
            return
        if self.terminal_closed:
            self._own.go_on_to_the_end()
            self._own.poll()
            if (finished := self._own.view.finished) is not None and finished.reason == "detached":
                self.detached = self._own.path  # asked for from elsewhere
        elif self._own.has_something_to_save and not self._own.join(SAVE_SECONDS):
            self.farewell = "the training did not end in time; what it saved last can be gone on with"
        self._own.poll()

    def on_signal(self, number: signal.Signals) -> None:
        """The terminal was closed, or the process is asked to save or to end. May come at any moment."""
        if number == signal.SIGUSR1:
            with suppress(LotrError):
                self.steer(Command("checkpoint"))
            return
        if number == signal.SIGHUP:
            self.terminal_closed = True
        else:
            self.stop_training()
        self._told_to_end = True
        if self.is_running and self._loop_here is not None:
            self._loop_here.call_soon_threadsafe(self.exit)

    # Settings

    def remember(self, **changes: Any) -> None:
        """Settings of controls, as `sampler`: they hold at once, and are written when the person leaves.

        Raises:
            UnusableInput: a value is out of range.
        """
        changed = replace(self.kept.current, **changes)
        self._unwritten = self._unwritten or changed != self.kept.current
        self.kept.current = changed

    def _keep_theme(self, theme: Theme) -> None:
        """Another theme was chosen; it is the next session's too."""
        if theme.name == self._theme_told:
            return
        self._theme_told = theme.name
        notice = self.kept.keep(theme=theme.name)
        self._unwritten = False
        if notice:
            self.notify(notice, severity="warning", markup=False)

    def get_line_filters(self) -> Sequence[LineFilter]:
        """With NO_COLOR: shades of grey, or for a theme of the terminal's own colours none at all."""
        if self.no_color and self.native_ansi_color:
            return self._colourless
        return super().get_line_filters()

    # Keys

    def keys_of(self, binding: Binding) -> str:
        """The keys of a binding as people read them, those that were put in place of the default ones too."""
        keys = self.kept.current.keymap.get(binding.id or "")
        if keys is None:
            if binding.key_display:
                return binding.key_display
            keys = binding.key
        return " ".join(self.get_key_display(binding.with_key(key.strip(), None)) for key in keys.split(","))

    def handle_bindings_clash(self, clashed_bindings: set[Binding], node: DOMNode) -> None:
        """A kept key was that of a widget of Textual's own: say once which action has lost it."""
        for binding in clashed_bindings:
            self._tell_of_keys(f"the key {binding.key}, which {(binding.description or binding.action)!r} has lost")

    def _check_keymap(self) -> None:
        """Say what is wrong with the kept keys."""
        from lotr_tui.commands import check_keymap

        for line in check_keymap(self.kept.current.keymap):
            self._tell_of_keys(line)

    def _tell_of_keys(self, line: str) -> None:
        if line not in self._clashes:  # Textual finds them anew at each key
            self._clashes.add(line)
            self.notify(f"{self.kept.path.name} has {line}", severity="warning", markup=False)

    def action_command_palette(self) -> None:
        """Show every action."""
        from lotr_tui.commands import Palette

        if not isinstance(self.screen, Palette):
            self.push_screen(Palette())

    def action_toggle_help(self) -> None:
        """Show or hide all keys."""
        from lotr_tui.commands import actions
        from lotr_tui.screens.dialogs.help import HelpScreen

        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        elif not isinstance(self.screen, SystemModalScreen):  # as the palette is
            self.push_screen(HelpScreen(list(actions(self, self.screen))))

    def _start(self, prepare: "Callable[[], TrainingJob]", left: Path | None = None) -> None:
        from lotr_tui.monitor.training_thread import OwnTraining

        self._own, self.is_training = OwnTraining(prepare, left), True
        self._poll_timer.resume()
        self._poll_training()

    def _poll_training(self) -> None:
        """Take in what the training has told, and pass it on to the screens."""
        if self._own is None or not self.is_training:
            return
        events, ended = self._own.poll()
        if ended:
            self.is_training = False
            self._poll_timer.pause()
        if events:
            for screen in self.screen_stack:
                screen.post_message(TrainingChanged(self._own.view, events))
        finished = self._own.view.finished
        if ended and finished is not None and finished.reason == "detached":
            self._detached()

    def _detached(self) -> None:
        """The training has saved and ended here; another process goes on with it."""
        path = None if self._own is None else self._own.path
        if path is None:
            return
        if self._job is not None:
            self.detached = path  # once the screen is gone
            self.exit()
            return

        def source(_: Cancellation) -> Iterator[str]:
            from lotr_tui.monitor.background import hand_over

            yield hand_over(path)

        self._handing_over = Worker("hand over", source).start()
        self._hand_timer = self.set_interval(POLL_SECONDS, self._handed_over)

    def _handed_over(self) -> None:
        if self._handing_over.running:
            return
        self._hand_timer.stop()
        for line in self._handing_over.drain():
            self.notify(line, timeout=15, markup=False)
        if self._handing_over.failure is not None:
            self.notify(str(self._handing_over.failure), severity="error", markup=False)
