"""The app: opens screens, and runs at most one training in a thread of this process."""

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from textual.binding import Binding
from textual.command import Provider
from textual.dom import DOMNode
from textual.screen import Screen, SystemModalScreen

from engine.control import ControlCommand
from engine.errors import InvalidInputError, LotrError, describe_error
from lotr_tui.app_base import AppOptions, LotrAppBase
from lotr_tui.background_task import run_in_thread
from lotr_tui.messages import ModelFetchChanged, TrainingChanged
from lotr_tui.screens.base import AppScreen

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.config import Config
    from engine.runs.loading import LoadedModel
    from engine.training.job import TrainingJob
    from lotr_tui.monitor.local_training import LocalTraining
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.screens.dialogs.questions import QuitChoice
    from lotr_tui.session.model_loading import Fetch
    from lotr_tui.session.session_model import SessionModel

SCREENS_DIR = Path(__file__).parent / "screens"
POLL_INTERVAL = 0.5
"""Seconds between two looks at the events of the training."""
QUIT_TIMEOUT = 0.8
"""Seconds to wait, with the screen still open, for the training to save."""
TRACKER_WAIT = 5.0
"""Seconds to wait, once the screen is closed, until experiment trackers have received the end of the training."""
SAVE_TIMEOUT = 20.0
"""Seconds to wait for the training to save once the screen is closed."""


def _command_provider() -> type[Provider]:
    from lotr_tui.commands import PaletteCommandProvider  # not needed for the first paint

    return PaletteCommandProvider


class LotrApp(LotrAppBase):
    """The terminal app: a session with a model, or the dashboard of a training, and screens above it."""

    CSS_PATH = [  # noqa: RUF012
        SCREENS_DIR.parent / "app.tcss",
        SCREENS_DIR / "session" / "session.tcss",
        SCREENS_DIR / "dashboard" / "dashboard.tcss",
        SCREENS_DIR / "learn" / "learn.tcss",
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    COMMANDS: ClassVar[set[type[Provider] | Callable[[], type[Provider]]]] = {_command_provider}

    def __init__(
        self,
        *,
        session_model: "SessionModel | None" = None,
        load_session_model: "Callable[[], SessionModel] | None" = None,
        job: "TrainingJob | None" = None,
        make_class_screen: "Callable[[], Screen[None]] | None" = None,
        fetch: "Fetch | None" = None,
        **options: Unpack[AppOptions],
    ) -> None:
        """Open a session, with `job` the dashboard of a training, or with `make_class_screen` the class.

        Args:
            session_model: Model of the session; None calls `load_session_model`.
            load_session_model: Loads the model of the session, in a thread and after the first paint.
            job: Training to run in this process.
            make_class_screen: Creates the screen of a chapter of the class.
            fetch: Fetches SmolLM2; None uses the network.
            **options: Options of any app.

        Raises:
            ConfigError: If no theme has the name in the options.
        """
        super().__init__(**options)
        self.session_model = session_model
        """Model that the app was started with, or None."""
        self._load_session_model = load_session_model
        self.job = job
        """Training that the app was started with, or None."""
        self._make_class_screen = make_class_screen
        self._fetch = fetch
        self._local_training: LocalTraining | None = None  # kept when the training has ended, for its view
        self.terminal_closed = False
        """True once the terminal is gone; the training continues without it."""
        self.detached_run: Path | None = None
        """Run directory of a training that another process resumes once the app has ended."""
        self.exit_code = 0
        """Exit code of the process: 0, or 128 plus the number of the signal that ended the app."""
        self._exit_requested = False
        self._quits_when_training_ends = False
        self._event_loop: asyncio.AbstractEventLoop | None = None
        self._reported_keymap_problems: set[str] = set()

    def get_default_screen(self) -> Screen[Any]:
        """Return the dashboard if the app was started with a job, or the class, or else the session."""
        if self._make_class_screen is not None:
            return self._make_class_screen()
        if self.job is not None:
            from lotr_tui.monitor.training_view import TrainingView
            from lotr_tui.screens.dashboard.screen import DashboardScreen

            return DashboardScreen(TrainingView(activity="starting"), self.send_command, exit_on_close=True)
        from lotr_tui.screens.session.screen import SessionScreen

        return SessionScreen(self.session_model, self.runs_dir, self.pace, load_session_model=self._load_session_model)

    def on_mount(self) -> None:
        """Check the user's keymap, and start the training if the app was started with a job."""
        if self.settings_store.current.keymap:
            self.call_after_refresh(self._check_keymap)
        self._poll_timer = self.set_interval(POLL_INTERVAL, self._poll_training, pause=True)
        self._fetch_timer = self.set_interval(POLL_INTERVAL, self._poll_fetch, pause=True)
        self._event_loop = asyncio.get_running_loop()
        job = self.job
        if job is not None and (self.terminal_closed or not self._exit_requested):
            self._launch_training(lambda: job, job.run.path if job.is_resume else None)
        if self._exit_requested:
            self.exit()

    def on_unmount(self) -> None:
        """Stop fetching, and the training unless it outlives its terminal."""
        if self.model_fetch is not None:
            self.model_fetch.cancel()
        if self._local_training is not None and not self.terminal_closed:
            self._local_training.stop()
            if self._local_training.has_unsaved_progress:
                self._local_training.join(QUIT_TIMEOUT)

    # Quitting

    async def action_quit(self) -> None:
        """Exit, after a question if a conversation would be lost, and another one if this process trains."""
        from lotr_tui.screens.dialogs.questions import ConfirmDialog, confirm

        screens = (screen for screen in self.screen_stack if isinstance(screen, AppScreen))
        problem = next(filter(None, (screen.save_again() for screen in screens)), "")
        if not problem:
            self._quit_saved()
        elif not isinstance(self.screen, ConfirmDialog):
            question = f"The conversation is not saved: {problem}. Free some space and quit again. Lose it and quit?"
            confirm(self, question, self._quit_saved, enter_confirms=False)

    def _quit_saved(self) -> None:
        """Exit. If this process trains, ask first whether to stop the training or to continue it in the background."""
        from lotr_tui.screens.dialogs.questions import QuitDialog

        if not self.is_training:
            self.exit()
        elif not isinstance(self.screen, QuitDialog):
            self.push_screen(QuitDialog(), self._quit_with_training)

    def _quit_with_training(self, choice: "QuitChoice | None") -> None:
        if choice is None:
            return
        if choice == "stop" or not self.is_training:
            self.exit()
            return
        self._quits_when_training_ends = True
        self.send_command(ControlCommand("detach"))
        self.notify("The training saves and moves to the background; then lotr-tui quits.", timeout=60)

    # Navigation

    def open_session(self, session_model: "SessionModel") -> None:
        """Show a session with `session_model` above the current screen."""
        from lotr_tui.screens.session.screen import SessionScreen

        self.push_screen(SessionScreen(session_model, self.runs_dir, self.pace))

    def open_training_session(self, view: "TrainingView") -> None:
        """Show a session with the model of a training above the current screen."""
        from lotr_tui.screens.session.screen import SessionScreen
        from lotr_tui.session.session_model import SessionModel

        events = [view.finished] if view.finished else view.evaluations[-1:]
        self.push_screen(
            SessionScreen(SessionModel.from_training(view, events, self.runs_dir), self.runs_dir, self.pace)
        )

    def open_dashboard(self, view: "TrainingView", on_close: "Callable[[LoadedModel | None], None]") -> None:
        """Show the dashboard of a training; `on_close` gets the run that was chosen on it, or None."""
        from lotr_tui.screens.dashboard.screen import DashboardScreen

        self.push_screen(DashboardScreen(view, self.send_command), on_close)

    def watch_run(self, path: Path, on_close: "Callable[[LoadedModel | None], None]") -> None:
        """Show the dashboard of a run that this or another process trains, or that has ended."""
        from lotr_tui.screens.dashboard.screen import DashboardScreen

        if path == self.run_path and self.training_view is not None:
            self.open_dashboard(self.training_view, on_close)
        else:
            self.push_screen(DashboardScreen.following(path), on_close)

    def action_command_palette(self) -> None:
        """Open the command palette."""
        from lotr_tui.commands import AppCommandPalette

        if not isinstance(self.screen, AppCommandPalette):
            self.push_screen(AppCommandPalette())

    def action_toggle_help(self) -> None:
        """Show or hide all keys."""
        from lotr_tui.commands import iter_binding_commands
        from lotr_tui.screens.dialogs.dialog import HelpScreen
        from lotr_tui.screens.session.keys import SLASH_COMMANDS
        from lotr_tui.screens.session.screen import SessionScreen

        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        elif not isinstance(self.screen, SystemModalScreen):  # not above the palette
            typed = SLASH_COMMANDS.values() if isinstance(self.screen, SessionScreen) else ()
            self.push_screen(
                HelpScreen(
                    list(iter_binding_commands(self, self.screen)), [(command.usage, command.help) for command in typed]
                )
            )

    # Training

    @property
    def training_view(self) -> "TrainingView | None":
        """State of the latest training of this process, or None before the first one."""
        return None if self._local_training is None else self._local_training.view

    @property
    def run_path(self) -> Path | None:
        """Run directory of the latest training of this process, or None before it is prepared."""
        if self._local_training is not None:
            return self._local_training.path
        return None if self.job is None else self.job.run.path

    @property
    def _is_launch_due(self) -> bool:
        """True if the training that the app was started with is not launched yet."""
        return self.job is not None and self._local_training is None

    def start_training(self, config: "Config", run_name: str | None = None) -> None:
        """Train in a thread of this process and report to the screens with `TrainingChanged`.

        Without a name, the run is named after the preset and the time.
        """
        runs_dir = self.runs_dir

        def prepare() -> "TrainingJob":
            from engine.training.job import prepare_job

            return prepare_job(config, run_name=run_name, runs_dir=runs_dir)

        self._launch_training(prepare)

    def send_command(self, command: ControlCommand) -> None:
        """Send a control command to the training.

        Raises:
            InvalidInputError: If nothing is training.
        """
        if self._local_training is None or not self.is_training:
            raise InvalidInputError("no training is running; press ctrl+t in the session to start one")
        self._local_training.send_command(command)

    def stop_training(self) -> None:
        """Ask the training to save and stop."""
        if self._local_training is not None:
            self._local_training.stop()

    def finish_training(self) -> None:
        """Wait, after the app has ended, until the training has saved; without a terminal until it has finished."""
        if self._local_training is None:
            return
        if self.terminal_closed:
            self._local_training.wait_until_finished()
            self._local_training.poll()
            if (finished := self._local_training.view.finished) is not None and finished.reason == "detached":
                self.detached_run = self._local_training.path  # requested by `lotr-tui attach`
        elif self._local_training.has_unsaved_progress and not self._local_training.join(SAVE_TIMEOUT):
            self.exit_message = "the training did not stop in time; resume it from its last checkpoint"
        self._local_training.poll()

    def handle_signal(self, signum: signal.Signals) -> None:
        """Save on SIGUSR1; exit on SIGHUP (the training continues) and on SIGINT and SIGTERM (it stops).

        The signal sets the exit code, unless a training continues.
        """
        if signum == signal.SIGUSR1:
            with suppress(LotrError):
                self.send_command(ControlCommand("checkpoint"))
            return
        continues = signum == signal.SIGHUP and (self.is_training or self._is_launch_due)
        self.exit_code = 0 if continues else 128 + signum
        if signum == signal.SIGHUP:
            self.terminal_closed = True
        else:
            self.stop_training()
        self._exit_requested = True
        if self.is_running and self._event_loop is not None:
            self._event_loop.call_soon_threadsafe(self.exit)

    def tracker_lines(self) -> list[str]:
        """Return lines about the experiment trackers of the latest training, to print once the screen is closed."""
        trackers = None if self._local_training is None else self._local_training.trackers
        if trackers is None:
            return []
        trackers.wait(TRACKER_WAIT)
        return trackers.closing_lines()

    def _launch_training(self, prepare: "Callable[[], TrainingJob]", resumed_run: Path | None = None) -> None:
        from lotr_tui.monitor.local_training import LocalTraining

        self._local_training, self.is_training = LocalTraining(prepare, resumed_run), True
        self._poll_timer.resume()
        self._poll_training()

    def _poll_training(self) -> None:
        """Forward new training events to all screens."""
        if self._local_training is None or not self.is_training:
            return
        events, ended = self._local_training.poll()
        if ended:
            self.is_training = False
            self._poll_timer.pause()
        if events:
            for screen in self.screen_stack:
                screen.post_message(TrainingChanged(self._local_training.view, events))
        finished, path = self._local_training.view.finished, self._local_training.path
        if ended and finished is not None and finished.reason == "detached" and path is not None:
            self._hand_over(path)
        elif ended and self._quits_when_training_ends:
            self.exit()

    def _hand_over(self, path: Path) -> None:
        """Let another process resume the training of a run, which has saved and ended here."""
        if self.job is not None or self._quits_when_training_ends:
            self.detached_run = path  # resumed once the screen is closed
            self.exit()
        else:
            self.run_worker(self._resume_in_background(path), group="detach")

    async def _resume_in_background(self, path: Path) -> None:
        from lotr_tui.monitor.background import resume_in_background

        try:
            self.notify(await run_in_thread(resume_in_background, path), timeout=15, markup=False)
        except Exception as error:
            self.notify(describe_error(error), severity="error", markup=False)

    # Fetching of SmolLM2

    def fetch_model(self) -> None:
        """Fetch SmolLM2 in a thread, unless that is going on, and report to the screens with `ModelFetchChanged`."""
        from engine.models.pretrained.fetch import fetch_smollm2
        from lotr_tui.session.model_loading import ModelFetch

        if self.model_fetch is None or not self.model_fetch.is_running:
            self.model_fetch = ModelFetch(self._fetch or fetch_smollm2)
        self._fetch_timer.resume()
        self._poll_fetch()

    def _poll_fetch(self) -> None:
        fetch = self.model_fetch
        if fetch is None:
            return
        has_ended = not fetch.is_running
        if has_ended:
            self._fetch_timer.pause()
        for screen in self.screen_stack:
            screen.post_message(ModelFetchChanged(fetch, has_ended=has_ended))

    # Keymap

    def handle_bindings_clash(self, clashed_bindings: set[Binding], node: DOMNode) -> None:
        """Report once each built-in action of Textual whose key the user's keymap has taken."""
        for binding in clashed_bindings:
            action = binding.description or binding.action
            self._notify_keymap_problem(f"key {binding.key} no longer triggers {action!r}; choose another key")

    def _check_keymap(self) -> None:
        from lotr_tui.commands import check_keymap

        for problem in check_keymap(self.settings_store.current.keymap):
            self._notify_keymap_problem(problem)

    def _notify_keymap_problem(self, problem: str) -> None:
        if problem not in self._reported_keymap_problems:  # Textual repeats a clash at every key
            self._reported_keymap_problems.add(problem)
            self.notify(f"{self.settings_store.path.name}: {problem}", severity="warning", markup=False)
