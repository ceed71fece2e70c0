"""Input that is not UTF-8 ends the app.

Seen in Textual 8.2.8. The input threads of the Linux driver and of the web driver decode strictly, so one invalid byte,
from a terminal with another encoding or a noisy line, raises `UnicodeDecodeError`. Upstream, the drivers would have to
decode with `errors="replace"`: https://github.com/Textualize/textual/issues/6456.
"""

import codecs
from functools import partial

from textual.drivers import linux_driver

from lotr_tui.textual_fixes.terminal.served import is_served


def replace_undecodable_input() -> None:
    """Let the drivers of Textual read invalid bytes as replacement characters."""
    linux_driver.getincrementaldecoder = _get_lenient_decoder  # type: ignore[assignment, attr-defined]
    if is_served():
        from textual.drivers import web_driver  # not needed in a terminal

        web_driver.getincrementaldecoder = _get_lenient_decoder  # type: ignore[assignment, attr-defined]


def _get_lenient_decoder(encoding: str) -> "partial[codecs.IncrementalDecoder]":
    return partial(codecs.getincrementaldecoder(encoding), errors="replace")
