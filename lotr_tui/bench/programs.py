"""Commands of the measured programs and their start in a terminal."""

import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lotr_tui.bench.processes import module_command
from lotr_tui.bench.terminal import Terminal

PROMPT = "Bilbo Baggins is"
INPUT_READY_TEXT = "Type here"
"""Text on the screen as soon as the session accepts keys: the placeholder of the input, in the first paint."""
MODEL_READY_TEXT = "Say hello"
"""Text on the screen as soon as the model is loaded: the beginning of the welcome text."""
TRAINING_READY_TEXT = "learning"
"""Text on the screen as soon as the session plays with a model that is being trained in it."""
BARE_APP_SOURCE = """
from textual.app import App
from textual.widgets import Footer, Header, Input, Static
class Bare(App):
    def compose(self):
        yield Header(); yield Static("hello"); yield Input(); yield Footer()
Bare().run()
"""
BARE_COMMAND = [sys.executable, "-c", BARE_APP_SOURCE]
"""Command of a minimal Textual app, the baseline of the session."""
BARE_READY_TEXT = "palette"
"""Text that the minimal app paints last."""
SESSION_COMMAND = module_command("lotr_tui")


def endless_session_command(max_tokens: int, pace: float, *, training: bool = False) -> list[str]:
    """Return the command of a session whose texts do not end before `max_tokens`.

    Args:
        max_tokens: Maximum length of a text in words.
        pace: Words per second on the screen; 0 for no delay.
        training: True to train a model in the session at the same time.
    """
    return module_command("lotr_tui.bench.endless_session", max_tokens, pace, *(["training"] if training else []))


def set_options(settings: Mapping[str, object]) -> list[str]:
    """Return the options of `train` that change settings."""
    return [f"--set={name}={value}" for name, value in settings.items()]


@contextmanager
def run_in_terminal(
    command: list[str], width: int, height: int, ready_text: str = MODEL_READY_TEXT, home: Path | None = None
) -> Iterator[Terminal]:
    """Run a program in a terminal, and enter the context once `ready_text` is shown and the output is quiet.

    `LOTR_TUI_HOME` is `home`, or an empty temporary directory.
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Terminal(command, width, height, home or Path(folder)).spawn() as terminal,
    ):
        terminal.read_until(ready_text)
        terminal.read_until_quiet(0.5, 3)
        yield terminal
