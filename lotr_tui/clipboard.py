"""Copying to the terminal's clipboard by the escape sequence OSC 52, and in the terminal of macOS by `pbcopy`."""

import base64
import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from textual.app import App

MAX_BYTES = 74_994 // 4 * 3  # many terminals cut or drop a base64 text of more than 74,994 bytes
SCREEN_CHUNK_SIZE = 200  # bytes of a control string; GNU screen passes on about 250, and prints a longer one


def copy_to_clipboard(app: App[Any], text: str, environ: Mapping[str, str] = os.environ) -> str:
    """Send `text` to the clipboards of the terminal and of the app. Return a line for the user.

    No terminal confirms that it has taken the text, so the line says "if your terminal allows it".
    """
    if not text:
        return "nothing to copy"
    app._clipboard = text  # what ctrl+v pastes; Textual's way writes OSC 52 too, which tmux and GNU screen may print
    paste_hint = "; ctrl+v pastes the text in the prompt"
    terminal, data = environ.get("TERM", ""), text.encode(errors="replace")  # a lone surrogate has no encoding
    if terminal in ("", "dumb", "linux"):
        return f"not copied: this terminal ({terminal or 'unnamed'}) has no clipboard{paste_hint}"
    if len(data) > MAX_BYTES:
        return f"not copied: {len(data):,} bytes, and terminals take at most {MAX_BYTES:,}{paste_hint}"
    if environ.get("TERM_PROGRAM") == "Apple_Terminal" and "SSH_CONNECTION" not in environ:  # it ignores the sequence
        with suppress(OSError, subprocess.SubprocessError):
            subprocess.run(["pbcopy"], input=data, timeout=2, check=True)
            return f"copied {len(text):,} characters"
    if app._driver is not None:
        app._driver.write(osc52_sequence(data, environ))
    return f"copied {len(text):,} characters (if your terminal allows it)"


def osc52_sequence(data: bytes, environ: Mapping[str, str]) -> str:
    """Return the sequence that sets the terminal's clipboard, also through tmux or GNU screen.

    tmux reads a plain sequence with `set-clipboard on` and passes on a wrapped one with `allow-passthrough on`, so
    both are sent. GNU screen would print a long sequence that is not wrapped.
    """
    sequence = f"\x1b]52;c;{base64.b64encode(data).decode()}\x07"
    if environ.get("TMUX"):
        escaped = sequence.replace("\x1b", "\x1b\x1b")
        return f"{sequence}\x1bPtmux;{escaped}\x1b\\"
    if environ.get("STY") or environ.get("TERM", "").startswith("screen"):
        chunks = [sequence[start : start + SCREEN_CHUNK_SIZE] for start in range(0, len(sequence), SCREEN_CHUNK_SIZE)]
        return "".join(f"\x1bP{chunk}\x1b\\" for chunk in chunks)
    return sequence
