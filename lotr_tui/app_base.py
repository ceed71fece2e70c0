"""Base class of the app: settings and themes, and the interface to training and navigation that screens use."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypedDict, Unpack

from textual.binding import Binding, BindingType
from textual.filter import LineFilter
from textual.timer import Timer

from engine.control import ControlCommand
from lotr_tui.session.settings import SettingsStore
from lotr_tui.textual_fixes.app import TextualFixesApp
from lotr_tui.theme import OWN_THEMES, SHIRE, ColorlessFilter, check_theme_name, muted_variables, speaker_variables

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.config import Config
    from engine.runs.loading import LoadedModel
    from lotr_tui.monitor.training_view import TrainingView
    from lotr_tui.session.model_loading import ModelFetch
    from lotr_tui.session.session_model import SessionModel


SAVE_DELAY = 0.5
"""Seconds between the first change of a setting and the writing of all changes until then."""


class AppOptions(TypedDict, total=False):
    """Keyword arguments of `LotrAppBase`; a missing one is None."""

    runs_dir: Path | None
    """Runs directory; None is the default one."""
    pace: float | None
    """Words per second in this session, 0 for no limit; None takes the saved pace."""
    theme: str | None
    """Name of the theme in this session; None takes the saved theme."""
    settings_store: SettingsStore | None
    """Store of the settings; None reads the user's settings file."""


class LotrAppBase(TextualFixesApp):
    """App with settings, themes and keys, whose subclass implements training and navigation.

    Screens import this class instead of `LotrApp`, which imports the screens.
    """

    TITLE = "lotr-tui"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1", "toggle_help", "help", id="app.help", tooltip="Show all keys", priority=True),
        Binding(
            "ctrl+p", "command_palette", "palette", id="app.palette", tooltip="All actions and themes", priority=True
        ),
        Binding("ctrl+q", "quit", "quit", id="app.quit", tooltip="Quit lotr-tui", priority=True),
    ]

    def __init__(self, **options: Unpack[AppOptions]) -> None:
        """Apply the options and the saved settings.

        Raises:
            ConfigError: If no theme has the name in the options.
        """
        super().__init__()
        self.runs_dir = options.get("runs_dir")
        self.settings_store = options.get("settings_store") or SettingsStore()
        pace, theme = options.get("pace"), options.get("theme")
        self.pace = self.settings_store.current.pace if pace is None else pace
        self.is_training = False
        """True while a thread of this process trains."""
        self.model_fetch: ModelFetch | None = None
        """SmolLM2 being fetched, or the last attempt; None before the first one."""
        self.exit_message = ""
        """Line for standard error after the screen is closed, or empty."""
        self._save_timer: Timer | None = None
        self._monochrome_filters = [ColorlessFilter()]
        for own_theme in OWN_THEMES:
            self.register_theme(own_theme)
        if theme is not None:
            check_theme_name(theme)
        self._startup_notices = [self.settings_store.notice]
        chosen = theme or self.settings_store.current.theme
        if chosen not in self.available_themes:
            notice = f"unknown theme {chosen!r} in {self.settings_store.path}; using {SHIRE.name} instead"
            self._startup_notices.append(notice)
            chosen = SHIRE.name
        self.theme = chosen

    # Training, implemented by the subclass

    @property
    def training_view(self) -> "TrainingView | None":
        """State of the latest training of this process, or None before the first one."""
        raise NotImplementedError

    @property
    def run_path(self) -> Path | None:
        """Run directory of the latest training of this process, or None before it is prepared."""
        raise NotImplementedError

    def start_training(self, config: "Config", run_name: str | None = None) -> None:
        """Train in a thread of this process and report to the screens with `TrainingChanged`.

        Without a name, the run is named after the preset and the time.
        """
        raise NotImplementedError

    def send_command(self, command: ControlCommand) -> None:
        """Send a control command to the training.

        Raises:
            LotrError: If nothing is training.
        """
        raise NotImplementedError

    def fetch_model(self) -> None:
        """Fetch SmolLM2 in a thread, unless that is going on, and report to the screens with `ModelFetchChanged`."""
        raise NotImplementedError

    # Navigation, implemented by the subclass

    def open_session(self, session_model: "SessionModel") -> None:
        """Show a session with `session_model` above the current screen."""
        raise NotImplementedError

    def open_training_session(self, view: "TrainingView") -> None:
        """Show a session with the model of a training above the current screen; later models replace it."""
        raise NotImplementedError

    def open_dashboard(self, view: "TrainingView", on_close: "Callable[[LoadedModel | None], None]") -> None:
        """Show the dashboard of a training; `on_close` gets the run that was chosen on it, or None."""
        raise NotImplementedError

    def watch_run(self, path: Path, on_close: "Callable[[LoadedModel | None], None]") -> None:
        """Show the dashboard of a run that this or another process trains, or that has ended."""
        raise NotImplementedError

    # Settings

    def update_settings(self, **changes: Any) -> None:
        """Change settings such as `sampler` or `pace`. Changes apply at once and are written after `SAVE_DELAY`.

        Raises:
            InvalidInputError: If a value is out of range.
        """
        self.settings_store.change(**changes)
        if self.is_running and self.settings_store.has_unsaved_changes and self._save_timer is None:
            self._save_timer = self.set_timer(SAVE_DELAY, self._start_save)

    def _start_save(self) -> None:
        self._save_timer = None
        self.run_worker(self._save_settings(), group="settings")

    async def _save_settings(self) -> None:
        """Write the changed settings in a thread, because a slow disk must not stop the screen."""
        if notice := await asyncio.to_thread(self.settings_store.save):
            self.notify(notice, severity="warning", markup=False)

    def on_mount(self) -> None:
        """Apply the saved keys and report problems with the settings file."""
        for notice in filter(None, self._startup_notices):
            self.notify(notice, severity="warning", markup=False)
        if self.settings_store.current.keymap:
            self.set_keymap(dict(self.settings_store.current.keymap))

    def on_unmount(self) -> None:
        """Write the settings that were changed since the last time."""
        if self.settings_store.has_unsaved_changes:
            self.exit_message = self.settings_store.save() or self.exit_message

    def choose_theme(self, name: str) -> None:
        """Use a theme, in this session and in later ones."""
        self.theme = name
        self.update_settings(theme=name)

    def get_css_variables(self) -> dict[str, str]:
        """Return the variables of the theme, with those for secondary text and speakers where it defines none."""
        variables = super().get_css_variables()
        defaults = muted_variables(variables["foreground"]) | speaker_variables(dark=self.current_theme.dark)
        self.theme_variables = {**defaults, **variables}
        return self.theme_variables

    def get_line_filters(self) -> Sequence[LineFilter]:
        """Return the line filters of Textual, or `ColorlessFilter` for NO_COLOR with an ANSI theme."""
        if self.no_color and self.native_ansi_color:
            return self._monochrome_filters
        return super().get_line_filters()

    def format_binding_keys(self, binding: Binding) -> str:
        """Return the keys of a binding for display, with the user's keymap applied."""
        keys = self.settings_store.current.keymap.get(binding.id or "")
        if keys is None:
            if binding.key_display:
                return binding.key_display
            keys = binding.key
        return " ".join(self.get_key_display(binding.with_key(key.strip(), None)) for key in keys.split(","))
