"""Copying to the terminal's clipboard by the escape sequence OSC 52, and in the terminal of macOS by `pbcopy`."""

import base64
import os
from collections.abc import Mapping
from typing import Any

from textual.app import App

MAX_BASE64_BYTES = 74_994
"""Limit of many terminals on the base64 text; they cut or drop a longer one."""
MAX_BYTES = MAX_BASE64_BYTES // 4 * 3
SCREEN_CHUNK_SIZE = 200
"""Bytes per device control string; GNU screen passes on about 250, and prints a longer one on the screen."""


def copy_to_clipboard(app: App[Any], text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Send `text` to the clipboards of the terminal and of the app. Return a line for the user.

    No terminal confirms that it has taken the text, so the line says "if your terminal allows it".
    """
    if not text:
        return "nothing to copy"
    app._clipboard = text  # what ctrl+v pastes; Textual's way writes OSC 52 too, which tmux and GNU screen may print
    paste_hint = "; ctrl+v pastes the text in the prompt"
    terminal = environ.get("TERM", "")
    if terminal in ("", "dumb", "linux"):
        return f"not copied: this terminal ({terminal or 'unnamed'}) has no clipboard{paste_hint}"
    num_bytes = len(_encode(text))
    if num_bytes > MAX_BYTES:
        return f"not copied: {num_bytes:,} bytes, and terminals take at most {MAX_BYTES:,}{paste_hint}"
    if environ.get("TERM_PROGRAM") == "Apple_Terminal" and "SSH_CONNECTION" not in environ and _run_pbcopy(text):
        return f"copied {len(text):,} characters"
    if app._driver is not None:
        app._driver.write(osc52_sequence(text, environ))
    return f"copied {len(text):,} characters (if your terminal allows it)"


def _run_pbcopy(text: str) -> bool:
    """Copy `text` by the program of macOS, whose own terminal ignores the sequence. Return True on success."""
    import subprocess

    try:
        return subprocess.run(["pbcopy"], input=_encode(text), timeout=2, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def osc52_sequence(text: str, environ: Mapping[str, str]) -> str:
    """Return the sequence that sets the terminal's clipboard, also through tmux or GNU screen.

    tmux reads a plain sequence with `set-clipboard on` and passes on a wrapped one with `allow-passthrough on`, so
    both are sent. GNU screen would print a long sequence that is not wrapped.
    """
    sequence = f"\x1b]52;c;{base64.b64encode(_encode(text)).decode()}\x07"
    if environ.get("TMUX"):
        escaped = sequence.replace("\x1b", "\x1b\x1b")
        return f"{sequence}\x1bPtmux;{escaped}\x1b\\"
    if environ.get("STY") or environ.get("TERM", "").startswith("screen"):
        chunks = [sequence[start : start + SCREEN_CHUNK_SIZE] for start in range(0, len(sequence), SCREEN_CHUNK_SIZE)]
        return "".join(f"\x1bP{chunk}\x1b\\" for chunk in chunks)
    return sequence


def _encode(text: str) -> bytes:
    return text.encode(errors="replace")  # a lone surrogate has no UTF-8 encoding
