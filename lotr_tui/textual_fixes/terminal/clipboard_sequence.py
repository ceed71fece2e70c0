"""`App.copy_to_clipboard` cannot be given another escape sequence.

Seen in Textual 8.2.8. The method writes the plain OSC 52 sequence, which tmux and GNU screen swallow or print, and
fails for text with a lone surrogate. Upstream, it would have to accept the sequence, or a public `App` method would
have to write one.
"""

from typing import Any

from textual.app import App


def set_local_clipboard(app: App[Any], text: str) -> None:
    """Set the clipboard that ctrl+v in the app pastes, without writing to the terminal."""
    app._clipboard = text


def write_to_terminal(app: App[Any], sequence: str) -> None:
    """Write an escape sequence to the terminal."""
    assert app._driver is not None, "the app is not running"
    app._driver.write(sequence)
