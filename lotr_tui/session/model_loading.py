"""Loading of a model by others in a thread, with its progress as text. This module imports nothing heavy."""

import time
from typing import TYPE_CHECKING

from engine.errors import printable
from engine.models.pretrained.names import PretrainedSource
from lotr_tui.formatting import format_bytes

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.models.pretrained.loading import LoadingProgress
    from lotr_tui.session.session_model import SessionModel

UPDATE_INTERVAL = 0.2
"""Seconds between two updates of the progress on the screen."""


class ModelLoader:
    """Loader of a model by others. A thread calls the loader while the screen reads `describe`."""

    def __init__(self, source: PretrainedSource) -> None:
        """Prepare to load the model from a place."""
        self.source = source
        self._started_at = time.monotonic()
        self._progress: LoadingProgress | None = None
        self._available_bytes: int | None = None
        """Free memory in bytes before the weights were read."""

    def __call__(self) -> "SessionModel":
        """Load the model; raise an InvalidInputError if that is not possible."""
        from lotr_tui.session.session_model import load_pretrained_session_model

        self._started_at = time.monotonic()
        return load_pretrained_session_model(self.source.name, self._report)

    def describe(self) -> str:
        """Return the current step, the memory that the model needs, and the time since the start, on one line."""
        progress = self._progress
        step = "importing torch and transformers" if progress is None else progress.text
        seconds = f"{time.monotonic() - self._started_at:.0f} s"
        return printable(" · ".join(filter(None, [f"loading {self.source.short_name}: {step}", self._memory, seconds])))

    def describe_briefly(self) -> str:
        """Return the name of the model and the current step."""
        progress = self._progress
        return printable(f"loading {self.source.short_name}" + ("" if progress is None else f": {progress.text}"))

    @property
    def _memory(self) -> str:
        """Memory that the model needs, and that is available; empty before it is known."""
        progress = self._progress
        if progress is None or progress.memory_bytes is None:
            return ""
        needed = f"needs {format_bytes(progress.memory_bytes, binary=True)}"
        if self._available_bytes is None:
            return needed
        return f"{needed} of {format_bytes(self._available_bytes, binary=True)} available"

    def _report(self, progress: "LoadingProgress") -> None:
        if progress.memory_bytes is not None and self._available_bytes is None:
            import psutil

            self._available_bytes = psutil.virtual_memory().available
        self._progress = progress
