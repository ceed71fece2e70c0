"""Workarounds for defects of Textual 8.2.8. The ones without a link are not reported.

Commands without a screen import this module, so it imports no Textual.
"""

import os

WEB_DRIVER = "textual.drivers.web_driver:WebDriver"  # `TEXTUAL_DRIVER` of an app that textual-serve starts


def is_served() -> bool:
    """Return True if a server shows the screen of this process in a browser, so that no terminal is needed."""
    return os.environ.get("TEXTUAL_DRIVER") == WEB_DRIVER
