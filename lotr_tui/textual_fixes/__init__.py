"""Workarounds for defects of Textual 8.2.8. The ones without a link are not reported.

Commands without a screen import this module, so it imports no Textual.
"""

import os

WEB_DRIVER = "textual.drivers.web_driver:WebDriver"  # `TEXTUAL_DRIVER` of an app that textual-serve starts
TMUX_ADVICE = "put `set -g default-terminal tmux-256color` into ~/.tmux.conf"


def is_served() -> bool:
    """Return True if a server shows the screen of this process in a browser, so that no terminal is needed."""
    return os.environ.get("TEXTUAL_DRIVER") == WEB_DRIVER


def is_plain_tmux() -> bool:
    """Return True in a tmux without configuration, which takes 256 colours though its TERM promises eight."""
    return bool(os.environ.get("TMUX")) and os.environ.get("TERM") == "screen" and "COLORTERM" not in os.environ
