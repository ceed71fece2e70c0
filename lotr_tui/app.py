"""The app: opens screens, asks before it quits, and has the keys and themes of all screens."""

import asyncio
import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from textual.binding import Binding, BindingType
from textual.screen import Screen, SystemModalScreen

from engine.control import ControlCommand
from engine.errors import LotrError
from lotr_tui.app_state import AppState, OpenSession, WatchRun
from lotr_tui.background_task import run_in_thread
from lotr_tui.screens.base import AppScreen
from lotr_tui.session.settings import SettingsStore
from lotr_tui.textual_fixes.app import TextualFixesApp
from lotr_tui.theme import OWN_THEMES, SHIRE, ColorlessFilter, default_variables

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.training.job import TrainingJob
    from lotr_tui.screens.dialogs.questions import QuitChoice
    from lotr_tui.session.model_loading import Fetch
    from lotr_tui.session.session_model import SessionModel

QUIT_TIMEOUT = 0.8  # seconds to wait, with the screen still open, for the training to save


class LotrApp(TextualFixesApp):
    """The terminal app: a session with a model, or the dashboard of a training, and screens above it."""

    TITLE = "lotr-tui"
    CSS_PATH = [  # noqa: RUF012
        Path(__file__).parent / path
        for path in ("app.tcss", *(f"screens/{name}/{name}.tcss" for name in ("session", "dashboard", "learn")))
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "toggle_help", "help", id="app.help", tooltip="Show all keys", priority=True),
        Binding("ctrl+p", "command_palette", "palette", id="app.palette", tooltip="All actions", priority=True),
        Binding("ctrl+q", "quit", "quit", id="app.quit", tooltip="Quit lotr-tui", priority=True),
    ]

    def __init__(
        self,
        *,
        session_model: "SessionModel | None" = None,
        load_session_model: "Callable[[], SessionModel] | None" = None,
        job: "TrainingJob | None" = None,
        make_screen: "Callable[[], Screen[Any]] | None" = None,
        fetch: "Fetch | None" = None,
        runs_dir: Path | None = None,
        pace: float | None = None,
        theme: str | None = None,
        settings_store: SettingsStore | None = None,
    ) -> None:
        """Open a session, with `job` the dashboard of a training, or the screen that `make_screen` returns.

        Without a model, `load_session_model` loads it after the first paint, in a thread. `pace`, in words per second,
        and `theme` are for this session; None takes the saved ones.
        """
        super().__init__()
        settings = settings_store or SettingsStore()
        self.state = AppState(self, runs_dir, settings)
        self.state.job, self.state.fetch = job, fetch
        self.session_model = session_model
        self.pace = settings.current.pace if pace is None else pace
        self._load_session_model, self._make_screen = load_session_model, make_screen
        self.terminal_closed = False  # the training then continues
        self.exit_code = 0  # or 128 plus the number of the signal that ended the app
        self._exit_requested = False
        self._event_loop: asyncio.AbstractEventLoop | None = None
        if self.no_color:
            self._filters[1:2] = [ColorlessFilter(self)]
        for own_theme in OWN_THEMES:
            self.register_theme(own_theme)
        self._startup_notices = [settings.notice]
        chosen = theme or settings.current.theme
        if chosen not in self.available_themes:
            self._startup_notices += [f"unknown theme {chosen!r} in {settings.path}; using {SHIRE.name} instead"]
            chosen = SHIRE.name
        self.theme = chosen

    def get_default_screen(self) -> Screen[Any]:
        if self._make_screen is not None:
            return self._make_screen()
        if self.state.job is not None:
            from lotr_tui.monitor.training_view import TrainingView
            from lotr_tui.screens.dashboard.screen import DashboardScreen

            return DashboardScreen(TrainingView(activity="starting"), self.state.send_command, exit_on_close=True)
        from lotr_tui.screens.session.screen import SessionScreen

        load = self._load_session_model
        return SessionScreen(self.session_model, self.state.runs_dir, self.pace, load_session_model=load)

    def on_open_session(self, message: OpenSession) -> None:
        from lotr_tui.screens.session.screen import SessionScreen

        self.push_screen(SessionScreen(message.session_model, self.state.runs_dir, self.pace))

    def on_watch_run(self, message: WatchRun) -> None:
        from lotr_tui.screens.dashboard.screen import DashboardScreen

        view = self.state.training_view if message.path == self.state.run_path else None
        watched = DashboardScreen(view, self.state.send_command) if view else DashboardScreen.following(message.path)
        self.push_screen(watched, message.on_close)

    def on_mount(self) -> None:
        for notice in filter(None, self._startup_notices):
            self.notify(notice, severity="warning", markup=False)
        if keymap := self.state.settings.current.keymap:
            self.set_keymap(dict(keymap))
            self.run_worker(self._check_keymap(keymap))
        self._event_loop = asyncio.get_running_loop()
        job = self.state.job
        if job is not None and (self.terminal_closed or not self._exit_requested):
            self.state.launch(lambda: job, job.run.path if job.is_resume else None)
        if self._exit_requested:
            self.exit()

    def on_unmount(self) -> None:
        """Write changed settings, and stop fetching, and the training unless it outlives its terminal."""
        state = self.state
        if state.settings.has_unsaved_changes:
            state.exit_message = state.settings.save() or state.exit_message
        if state.model_fetch is not None:
            state.model_fetch.cancel()
        if state.training is not None and not self.terminal_closed:
            state.training.stop()
            if state.training.has_unsaved_progress:
                state.training.join(QUIT_TIMEOUT)

    # Quitting

    async def action_quit(self) -> None:
        """Exit, after a question if a conversation would be lost, and another one if this process trains."""
        from lotr_tui.screens.dialogs.questions import ConfirmDialog, confirm

        screens = (screen for screen in self.screen_stack if isinstance(screen, AppScreen))
        problem = next(filter(None, (screen.save_again() for screen in screens)), "")
        question = f"The conversation is not saved: {problem}. Free some space and quit again. Lose it and quit?"
        if not problem:
            self._quit_saved()
        elif not isinstance(self.screen, ConfirmDialog):
            confirm(self, question, self._quit_saved, enter_confirms=False)

    def _quit_saved(self) -> None:
        from lotr_tui.screens.dialogs.questions import QuitDialog

        if not self.state.is_training:
            self.exit()
        elif not isinstance(self.screen, QuitDialog):
            self.push_screen(QuitDialog(), self._quit_with_training)

    def _quit_with_training(self, choice: "QuitChoice | None") -> None:
        if choice == "stop" or (choice and not self.state.is_training):
            self.exit()
        elif choice:
            self.state.quits_when_training_ends = True
            self.state.send_command(ControlCommand("detach"))
            self.notify("The training saves and moves to the background; then lotr-tui quits.", timeout=60)

    def handle_signal(self, signum: signal.Signals) -> None:
        """Save on SIGUSR1; exit on SIGHUP (the training continues) and on SIGINT and SIGTERM (it stops).

        The signal sets the exit code, unless a training continues.
        """
        state = self.state
        if signum == signal.SIGUSR1:
            with suppress(LotrError):
                state.send_command(ControlCommand("checkpoint"))
            return
        is_launch_due = state.job is not None and state.training is None
        continues = signum == signal.SIGHUP and (state.is_training or is_launch_due)
        self.exit_code = 0 if continues else 128 + signum
        if signum == signal.SIGHUP:
            self.terminal_closed = True
        elif state.training is not None:
            state.training.stop()
        self._exit_requested = True
        if self.is_running and self._event_loop is not None:
            self._event_loop.call_soon_threadsafe(self.exit)

    # Palette, help and keymap

    def action_command_palette(self) -> None:
        from lotr_tui.commands import AppCommandPalette

        if not isinstance(self.screen, AppCommandPalette):
            self.push_screen(AppCommandPalette())

    def action_toggle_help(self) -> None:
        from lotr_tui.commands import iter_binding_commands
        from lotr_tui.screens.dialogs.dialog import HelpScreen
        from lotr_tui.screens.session.keys import SLASH_COMMANDS
        from lotr_tui.screens.session.screen import SessionScreen

        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        elif not isinstance(self.screen, SystemModalScreen):  # not above the palette
            typed = SLASH_COMMANDS.values() if isinstance(self.screen, SessionScreen) else ()
            commands = list(iter_binding_commands(self, self.screen))
            self.push_screen(HelpScreen(commands, [(command.usage, command.help) for command in typed]))

    def get_key_display(self, binding: Binding) -> str:
        keys = self.state.settings.current.keymap.get(binding.id or "")
        if keys is None and binding.key_display:
            return binding.key_display
        display = super().get_key_display
        return " ".join(display(binding.with_key(key.strip(), None)) for key in (keys or binding.key).split(","))

    async def _check_keymap(self, keymap: Mapping[str, str]) -> None:
        from lotr_tui.commands import check_keymap

        if problem := await run_in_thread(check_keymap, keymap, type(self)):
            self.notify(f"{self.state.settings.path.name}: {problem}", severity="warning", markup=False)

    # Themes

    def action_choose_theme(self, name: str) -> None:
        self.theme = name
        self.state.update_settings(theme=name)

    def get_css_variables(self) -> dict[str, str]:
        variables = super().get_css_variables()
        defaults = default_variables(variables["foreground"], dark=self.current_theme.dark)
        self.theme_variables = {**defaults, **variables}
        return self.theme_variables
