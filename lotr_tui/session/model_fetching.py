"""Fetching of SmolLM2 in a thread, with its progress as text. This module imports nothing heavy."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from engine.errors import describe_error, printable
from engine.runtime.worker import Cancellation
from lotr_tui.formatting import format_age

if TYPE_CHECKING:  # most sessions fetch nothing
    from engine.models.pretrained.fetch import FetchProgress

MODEL_NAME = "SmolLM2"
MIN_RATE_SECONDS = 2.0
"""Seconds of fetching after which its rate is known well enough for the time that is left."""
QUIT_TIMEOUT = 0.3
"""Seconds to wait, when the app quits, until the file that is being written is closed."""


Fetch = Callable[[Callable[["FetchProgress"], None], Callable[[], bool]], object]
"""Function that fetches the model: it reports its progress, and stops soon after its second argument returns True."""


class ModelFetch:
    """SmolLM2 being fetched by a thread; what is there when it is cancelled is used by the next one."""

    def __init__(self, fetch: Fetch) -> None:
        """Start to fetch."""
        self.failure = ""
        """Why the model could not be fetched, and what to do; empty unless that has failed."""
        self._fetch = fetch
        self._cancellation = Cancellation()
        self._progress: FetchProgress | None = None
        self._first_bytes: tuple[float, int] | None = None
        """Time of the first report with bytes, and how many were there."""
        self._thread = threading.Thread(target=self._run, name="model-fetch", daemon=True)
        self._thread.start()

    @property
    def is_running(self) -> bool:
        """True until the model is there, fetching has failed or was cancelled."""
        return self._thread.is_alive()

    def cancel(self) -> None:
        """Stop, and wait a moment for that."""
        self._cancellation.set()
        self._thread.join(QUIT_TIMEOUT)

    def describe(self) -> str:
        """Return the progress on one line, such as `SmolLM2: 34 of 98 MB · 12 s left`."""
        progress = self._progress
        if progress is None or not progress.total_bytes:
            return printable(f"{MODEL_NAME}: {'starting' if progress is None else progress.text} …")
        text = f"{MODEL_NAME}: {progress.done_bytes / 1e6:.0f} of {progress.total_bytes / 1e6:.0f} MB"
        started_at, first = self._first_bytes or (time.monotonic(), progress.done_bytes)
        seconds, fetched = time.monotonic() - started_at, progress.done_bytes - first
        if seconds < MIN_RATE_SECONDS or not fetched:
            return text
        return f"{text} · {format_age((progress.total_bytes - progress.done_bytes) / fetched * seconds)} left"

    def _run(self) -> None:
        try:
            self._fetch(self._report, self._cancellation)
        except Exception as error:  # the small model can still be played with
            if not self._cancellation():
                self.failure = describe_error(error)

    def _report(self, progress: "FetchProgress") -> None:
        if progress.total_bytes and self._first_bytes is None:
            self._first_bytes = time.monotonic(), progress.done_bytes
        self._progress = progress
