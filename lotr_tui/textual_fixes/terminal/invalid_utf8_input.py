"""Input that is not UTF-8 ends the app.

Seen in Textual 8.2.8. The input thread of the Linux driver decodes strictly, so one invalid byte, from a terminal with
another encoding or a noisy line, raises `UnicodeDecodeError`. Upstream, the driver would have to decode with
`errors="replace"`.
"""

import codecs
from functools import partial

from textual.drivers import linux_driver


def replace_undecodable_input() -> None:
    """Let Textual's Linux driver read invalid bytes as replacement characters."""
    linux_driver.getincrementaldecoder = _get_lenient_decoder  # type: ignore[assignment, attr-defined]


def _get_lenient_decoder(encoding: str) -> "partial[codecs.IncrementalDecoder]":
    return partial(codecs.getincrementaldecoder(encoding), errors="replace")
