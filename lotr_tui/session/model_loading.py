"""Loading of a model in a thread beside a screen, with its progress as text. This module imports nothing heavy."""

import gc
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InvalidInputError, printable
from engine.models.pretrained.names import SMOLLM2, is_base_stored, is_pretrained_name, parse_pretrained_name
from lotr_tui.formatting import format_bytes

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.models.pretrained.base import LoadingProgress
    from engine.runs.combine import CombinationOptions
    from lotr_tui.session.session_model import SessionModel

UPDATE_INTERVAL = 0.2
"""Seconds between two updates of the progress on the screen."""


def check_fetched(base: str, run: str = "") -> None:
    """Raise an InvalidInputError if SmolLM2 is the model `base`, by itself or of an adapter `run`, and is missing."""
    if base == SMOLLM2 and not is_base_stored(SMOLLM2):
        adapter = f"{run} is an adapter of {base}, which" if run else base
        raise InvalidInputError(f"{adapter} has not been fetched; run `lotr-tui fetch {SMOLLM2}`")


class ModelLoader:
    """Loader of the model of a session. A thread calls the loader while the screen reads `describe`."""

    def __init__(
        self,
        names: Sequence[str] = (),
        runs_dir: Path | None = None,
        combination: "CombinationOptions | None" = None,
    ) -> None:
        """Prepare to load the models that `load_session_model` takes by these arguments.

        Raises:
            InvalidInputError: If a model by others is missing.
        """
        for name in names:
            check_fetched(name)
        self.names = tuple(names)
        """Names of the models; empty for the default one."""
        self._runs_dir = runs_dir
        self._combination = combination
        labels = [
            parse_pretrained_name(name).short_name if is_pretrained_name(name) else Path(name).name for name in names
        ]
        self._label = "+".join(labels) or "the model"
        self._started_at = time.monotonic()
        self._progress: LoadingProgress | None = None
        self._available_bytes: int | None = None
        """Free memory in bytes before the weights were read."""

    def __call__(self) -> "SessionModel":
        """Load the model, while other threads keep running.

        Raises:
            InvalidInputError: If the model cannot be loaded.
        """
        # Importing numpy takes half as long as everything else before the first paint.
        from engine.runtime.process import trim_heap
        from lotr_tui.session.session_model import load_session_model

        self._started_at = time.monotonic()
        gc.disable()  # a search of the objects of torch and transformers stops all threads for up to 1.1 s
        try:
            session_model = load_session_model(self.names, self._runs_dir, self._combination, on_progress=self._report)
        finally:
            gc.freeze()
            gc.enable()
        trim_heap()  # loading SmolLM2 leaves 11 MB of freed memory behind
        return session_model

    def describe(self) -> str:
        """Return the current step, the memory that the model needs, and the time since the start, on one line."""
        seconds = f"{time.monotonic() - self._started_at:.0f} s"
        return printable(" · ".join(filter(None, [self.describe_briefly(), self._memory, seconds])))

    def describe_briefly(self) -> str:
        """Return the name of the model and the current step."""
        progress = self._progress
        return printable(f"loading {self._label}" + ("" if progress is None else f": {progress.text}"))

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
