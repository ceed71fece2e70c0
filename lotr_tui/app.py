"""The app: opens screens, asks before it quits, and has the keys, commands, help and themes of all screens."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from textual import actions, command
from textual.app import App
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import Screen, SystemModalScreen
from textual.widgets import Input

from engine.control import ControlCommand
from engine.errors import LotrError
from lotr_tui import theme as themes
from lotr_tui.app_state import AppState, OpenSession, WatchRun
from lotr_tui.formatting import fit_cells
from lotr_tui.screens.base import AppScreen
from lotr_tui.session.model_loading import ModelLoader
from lotr_tui.textual_fixes import TMUX_ADVICE
from lotr_tui.textual_fixes.app import RobustCommandPalette, TextualFixesApp
from lotr_tui.widgets.inputs import MAX_LINE_CHARACTERS

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.training.job import TrainingJob
    from lotr_tui.session.session_model import SessionModel

QUIT_TIMEOUT = 0.8  # seconds to wait, with the screen still open, for the training to save
KEYS_WIDTH = 10  # cells of the keys before a command


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
        session_model: "SessionModel | ModelLoader | None" = None,
        job: "TrainingJob | None" = None,
        make_screen: "Callable[[], Screen[Any]] | None" = None,
        runs_dir: Path | None = None,
        pace: float | None = None,
        theme: str | None = None,
    ) -> None:
        """Open a session, with `job` the dashboard of a training, or the screen that `make_screen` returns.

        A thread loads the model of a loader after the first paint. `pace`, in words per second, and `theme` are for
        this session; None takes the saved ones.
        """
        super().__init__()
        self.state = AppState(self, runs_dir, job)
        settings, self.session_model = self.state.settings, session_model or ModelLoader()
        self.pace = settings.current.pace if pace is None else pace
        self._make_screen = make_screen
        self.terminal_closed = False  # the training then continues
        self.exit_code, self._exit_requested = 0, False  # 128 plus the number of a signal that has ended the app
        if self.no_color:
            self._filters[1:2] = [themes.ColorlessFilter(self)]
        for own_theme in themes.OWN_THEMES:
            self.register_theme(own_theme)
        self._startup_notices = [settings.notice]
        is_poor = os.environ.get("TERM") == "screen" and self.console.color_system == "standard"
        if is_poor and not settings.current.knows_colors:
            self._startup_notices.append(f"TERM=screen has few colours; behind tmux, {TMUX_ADVICE}")
            self.state.update_settings(knows_colors=True)
        chosen = theme or settings.current.theme
        if chosen not in self.available_themes:
            self._startup_notices += [f"unknown theme {chosen!r} in {settings.path}; using {themes.SHIRE.name} instead"]
            chosen = themes.SHIRE.name
        self.theme = chosen

    def get_default_screen(self) -> Screen[Any]:
        if self._make_screen is not None:
            return self._make_screen()
        if self.state.job is not None:
            from lotr_tui.monitor.training_view import TrainingView
            from lotr_tui.screens.dashboard.screen import DashboardScreen

            return DashboardScreen(TrainingView(), self.state.send_command, exit_on_close=True)
        from lotr_tui.screens.session.screen import SessionScreen

        return SessionScreen(self.session_model, self.pace)

    def on_open_session(self, message: OpenSession) -> None:
        from lotr_tui.screens.session.screen import SessionScreen

        self.push_screen(SessionScreen(message.session_model or ModelLoader(), self.pace))

    def on_watch_run(self, message: WatchRun) -> None:
        from lotr_tui.screens.dashboard.screen import DashboardScreen
        from lotr_tui.screens.session.screen import SessionScreen

        view, path = self.state.training_view, message.path
        if view is not None and path in (None, self.state.run_path):
            watched = DashboardScreen(view, self.state.send_command)
        else:
            assert path is not None
            watched = DashboardScreen.following(path)
        for screen in self.screen_stack:
            if isinstance(screen, SessionScreen):
                screen.training.attach(path)
        self.push_screen(watched, message.on_close)

    def on_mount(self) -> None:
        for notice in filter(None, self._startup_notices):
            self.notify(notice, severity="warning", markup=False)
        job = self.state.job
        if job is not None and (self.terminal_closed or not self._exit_requested):
            self.state.launch(lambda: job, job.run.path if job.is_resume else None)
        if self._exit_requested:
            self.exit()

    def on_unmount(self) -> None:
        """Write changed settings, and stop fetching, and the training unless it outlives its terminal."""
        state = self.state
        if state.settings.unsaved:
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
        from lotr_tui.screens.dialogs.dialog import ConfirmDialog, confirm

        problems = (screen.save_again() for screen in self.screen_stack if isinstance(screen, AppScreen))
        problem = next(filter(None, problems), "")
        question = f"The conversation is not saved: {problem}. Free some space and quit again. Lose it and quit?"
        if not problem:
            self._quit_saved()
        elif not isinstance(self.screen, ConfirmDialog):
            confirm(self, question, self._quit_saved, enter_confirms=False)

    def _quit_saved(self) -> None:
        from lotr_tui.screens.dialogs.questions import QuitDialog

        def quit_with_training(choice: str | None) -> None:
            if choice == "stop" or (choice and not self.state.is_training):
                self.exit()
            elif choice:
                self.state.quits_when_training_ends = True
                self.state.send_command(ControlCommand("detach"))
                self.notify("The training saves and moves to the background; then lotr-tui quits.", timeout=60)

        if not self.state.is_training:
            self.exit()
        elif not isinstance(self.screen, QuitDialog):
            self.push_screen(QuitDialog(), quit_with_training)

    def handle_signal(self, number: int, _: object = None) -> None:
        """Save on SIGUSR1; exit on SIGHUP (the training continues), and on SIGINT, SIGTERM and SIGQUIT (it stops).

        The signal sets the exit code, unless a training continues.
        """
        state = self.state
        if number == signal.SIGUSR1:
            with suppress(LotrError):
                state.send_command(ControlCommand("checkpoint"))
            return
        continues = number == signal.SIGHUP and (state.is_training or (state.job and not state.training))
        self.exit_code = 0 if continues else 128 + number
        if number == signal.SIGHUP:
            self.terminal_closed = True
        elif state.training is not None:
            state.training.stop()
        self._exit_requested = True
        if self.is_running:
            asyncio.get_running_loop().call_soon_threadsafe(self.exit)

    # Palette and help

    def action_command_palette(self) -> None:
        if not isinstance(self.screen, AppCommandPalette):
            placeholder = "Search for a command, a key or a theme"
            self.push_screen(AppCommandPalette([PaletteCommandProvider], placeholder=placeholder))

    def action_toggle_help(self) -> None:
        from lotr_tui.screens.dialogs.dialog import HelpScreen
        from lotr_tui.screens.session.keys import SLASH_COMMANDS
        from lotr_tui.screens.session.screen import SessionScreen

        if isinstance(self.screen, HelpScreen):
            self.screen.dismiss()
        elif not isinstance(self.screen, SystemModalScreen):  # not above the palette
            groups = [
                (heading, KEYS_WIDTH, [(each.keys, each.explanation) for each in members])
                for heading, members in groupby(iter_binding_commands(self, self.screen), lambda each: each.group)
            ]
            if isinstance(self.screen, SessionScreen):
                typed = [(each.usage, each.help) for each in SLASH_COMMANDS.values()]
                groups.insert(1, ("Type into the prompt", max(len(usage) for usage, _ in typed), typed))
            self.push_screen(HelpScreen(groups))

    def get_key_display(self, binding: Binding) -> str:
        if binding.key_display:
            return binding.key_display
        display = super().get_key_display
        return " ".join(display(binding.with_key(key.strip(), None)) for key in binding.key.split(","))

    # Themes

    def action_choose_theme(self, name: str) -> None:
        self.theme = name
        self.state.update_settings(theme=name)

    def get_css_variables(self) -> dict[str, str]:
        variables = super().get_css_variables()
        defaults = themes.default_variables(variables["foreground"], dark=self.current_theme.dark)
        self.theme_variables = {**defaults, **variables}
        return self.theme_variables


class PaletteCommand(NamedTuple):
    """Command of the palette and line of the help."""

    keys: str  # or a remark on a theme
    name: str
    run: Callable[[], Any]
    explanation: str = ""
    action: str = ""  # of the binding; empty for a theme
    group: str = ""  # heading in the help


class AppCommandPalette(RobustCommandPalette):
    """Command palette with one line per command, after its keys."""

    def on_mount(self) -> None:
        for search_input in self.query(Input):  # none if the palette was closed at once
            search_input.cursor_blink = False
            search_input.max_length = MAX_LINE_CHARACTERS


class PaletteCommandProvider(command.Provider):
    """Provider of all commands, since Textual does not keep the order of several: actions, then themes."""

    def _rows(self) -> Iterator[tuple[PaletteCommand, Content]]:
        app = self.app
        commands = [each for each in iter_binding_commands(app, self.screen) if each.action != "command_palette"]
        for name in themes.THEME_NAMES:
            choose = partial(app.run_action, f"choose_theme({name!r})", app)
            commands.append(PaletteCommand("in use" if name == app.theme else "", f"theme: {name}", choose))
        return ((each, Content.assemble((fit_cells(each.keys, KEYS_WIDTH), "dim"), "  ")) for each in commands)

    async def discover(self) -> command.Hits:
        for each, keys in self._rows():
            yield command.DiscoveryHit(keys + each.name, each.run, each.name)

    async def search(self, query: str) -> command.Hits:
        matcher = self.matcher(query)
        for each, keys in self._rows():
            if score := max(matcher.match(each.name), matcher.match(each.keys)):
                yield command.Hit(score, keys + matcher.highlight(each.name), each.run, each.name)


def iter_binding_commands(app: App[Any], screen: Screen[Any]) -> Iterator[PaletteCommand]:
    """Yield the actions of a screen, of its widgets from the focused one on, and of the app."""
    focused = [node for node in screen.focused.ancestors_with_self if node is not screen] if screen.focused else []
    nodes: list[DOMNode] = [screen, *focused, *screen.query("*"), app]
    available: dict[tuple[type[DOMNode], str], tuple[DOMNode, Binding, dict[str, None]]] = {}
    for node in dict.fromkeys(nodes):
        for binding in collect_bindings(type(node)):
            _, name, parameters = actions.parse(binding.action)
            if node.check_action(name, parameters) is not False:
                # Several widgets of a class, and several bindings of an action, make one command.
                _, _, keys = available.setdefault((type(node), binding.action), (node, binding, {}))
                own_keys = binding.with_key(binding.key, None)  # "[ ]" in the footer stands for two commands
                keys.update(dict.fromkeys(app.get_key_display(own_keys).split()))
    for node, binding, keys in available.values():
        name = f"{binding.description}: {binding.tooltip}" if binding.tooltip else binding.description
        run = partial(app.run_action, binding.action, node)
        group = "This screen" if node is screen else "Everywhere" if node is app else str(node.BINDING_GROUP_TITLE)
        yield PaletteCommand(" ".join(keys), name, run, binding.tooltip or name, binding.action, group)


def collect_bindings(node_type: type[DOMNode]) -> list[Binding]:
    """Return the bindings with an id of a screen or widget class, inherited ones included."""
    bindings: dict[str, Binding] = {}
    for base in node_type.__mro__:
        for binding in base.__dict__.get("BINDINGS", ()):
            if isinstance(binding, Binding) and binding.id is not None:
                bindings.setdefault(binding.id, binding)
        if not base.__dict__.get("_inherit_bindings", True):
            break
    return list(bindings.values())
