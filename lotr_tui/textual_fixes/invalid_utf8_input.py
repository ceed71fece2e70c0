"""What a terminal sends that is no text: another encoding than UTF-8, or noise of a line."""

import codecs
from functools import partial

from textual.drivers import linux_driver


def forgive_bytes() -> None:
    """Have Textual read bytes that are no UTF-8 as replacement characters; it would end the program."""
    linux_driver.getincrementaldecoder = _forgiving  # type: ignore[assignment, attr-defined]


def _forgiving(encoding: str) -> "partial[codecs.IncrementalDecoder]":
    return partial(codecs.getincrementaldecoder(encoding), errors="replace")
