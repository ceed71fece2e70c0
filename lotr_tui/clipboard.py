"""Copying to the clipboard of the terminal, by the sequence OSC 52, and saying what was done and no more."""

import base64
import os
from collections.abc import Mapping
from typing import Any

from textual.app import App

MOST_ENCODED = 74_994
"""Bytes of base64; many terminals take no more, and cut or drop what is longer."""
MOST_BYTES = MOST_ENCODED // 4 * 3
SCREEN_PART = 200
"""GNU screen hands on at most some 250 bytes at a time, and prints what is longer."""


def copy(app: App[Any], text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Send `text` to the terminal's clipboard, keep it for pasting in the app, and return a line that says so.

    No terminal tells whether it has taken the text, so the line does not say "copied".
    """
    if not text:
        return "nothing to copy"
    app._clipboard = text  # as Textual's own `copy_to_clipboard` does; ctrl+v in the prompt pastes it
    kept = "; ctrl+v pastes it in the prompt"
    terminal = environment.get("TERM", "")
    if terminal in ("", "dumb", "linux") or app._driver is None:
        return f"nothing was sent: this terminal ({terminal or 'unnamed'}) has no clipboard{kept}"
    size = len(_encode(text))
    if size > MOST_BYTES:
        return f"nothing was sent: {size:,} bytes, and terminals take at most {MOST_BYTES:,}{kept}"
    app._driver.write(sequences(text, environment))
    return f"sent {len(text):,} characters to the terminal's clipboard; whether it took them is not known"


def sequences(text: str, environment: Mapping[str, str]) -> str:
    """What sets the clipboard of the terminal: by itself, and through the tmux or GNU screen that stands between.

    tmux takes the sequence itself with `set-clipboard on` and hands on the wrapped one with
    `allow-passthrough on`; both are sent. GNU screen would print a long sequence that is not wrapped.
    """
    sequence = f"\x1b]52;c;{base64.b64encode(_encode(text)).decode()}\x07"
    if environment.get("TMUX"):
        doubled = sequence.replace("\x1b", "\x1b\x1b")
        return f"{sequence}\x1bPtmux;{doubled}\x1b\\"
    if environment.get("STY") or environment.get("TERM", "").startswith("screen"):
        parts = [sequence[at : at + SCREEN_PART] for at in range(0, len(sequence), SCREEN_PART)]
        return "".join(f"\x1bP{part}\x1b\\" for part in parts)
    return sequence


def _encode(text: str) -> bytes:
    return text.encode(errors="replace")  # a lone surrogate is no text for anybody else
