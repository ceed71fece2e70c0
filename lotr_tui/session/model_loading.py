"""Models that are loaded and fetched in threads, with their progress as text. This module imports nothing heavy."""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import InvalidInputError, describe_error, printable
from engine.models.pretrained import names as pretrained
from engine.models.pretrained.names import SMOLLM2
from engine.runtime.process import Cancellation, GeneratorThread
from lotr_tui.formatting import format_needs
from lotr_tui.session.settings import MAX_RECENT_MODELS, read_strength

if TYPE_CHECKING:  # these modules import numpy, which the first paint does not need
    from engine.models.pretrained.base import LoadingProgress
    from engine.models.pretrained.fetch import FetchProgress
    from engine.runs.combine import CombinationOptions
    from lotr_tui.session.session_model import SessionModel

UPDATE_INTERVAL = 0.2  # seconds between two updates of the progress on the screen
QUIT_TIMEOUT = 0.3  # seconds to wait, when the app quits, until the file that is being written is closed

GivenAdapter = tuple[str, float]
"""Run whose adapter is put beside a model, as typed, and its strength."""


def parse_adapter(text: str) -> GivenAdapter:
    """Read `RUN:X` or `RUN`, or raise an InvalidInputError."""
    name, colon, number = text.strip().rpartition(":")
    if not colon:
        return number, 1.0
    if not name or not number:
        raise InvalidInputError(f"{text[:40]!r} is no adapter; write RUN:X, such as romeo:0.5")
    return name, read_strength(number)


def check_fetched(base: str, run: str = "") -> None:
    """Raise an InvalidInputError if SmolLM2 is the model `base`, by itself or of an adapter `run`, and is missing."""
    if base == SMOLLM2 and not pretrained.is_base_stored(SMOLLM2):
        adapter = f"{run} is an adapter of {base}, which" if run else base
        raise InvalidInputError(f"{adapter} has not been fetched; run `lotr-tui fetch {SMOLLM2}`")


class ModelLoader:
    """Loader of a model, see `load_session_model`, which a thread calls while the screen reads `describe`."""

    def __init__(
        self,
        names: Sequence[str] = (),
        runs_dir: Path | None = None,
        combination: "CombinationOptions | None" = None,
        adapters: Sequence[GivenAdapter] = (),
        before: "SessionModel | None" = None,
    ) -> None:
        """Load the model `names`, steered as the same model was `before`."""
        for name in names:
            check_fetched(name)
        self.names, self.adapters = tuple(names), tuple(adapters)
        self._runs_dir, self._combination, self._before = runs_dir, combination, before
        self._label = "+".join(map(pretrained.short_name, [*(names or ["the model"]), *(name for name, _ in adapters)]))
        self._started_at = time.monotonic()
        self._progress: LoadingProgress | None = None

    def __call__(self) -> "SessionModel":
        # Importing numpy takes half as long as everything else before the first paint.
        from lotr_tui.session.session_model import load_session_model

        self._started_at = time.monotonic()
        gc.disable()  # a search of the objects of torch and transformers stops all threads for up to 1.1 s
        try:
            model = load_session_model(
                self.names, self._runs_dir, self._combination, on_progress=self._report, adapters=self.adapters
            )
            if self._before is not None and (vector := self._before.vector) is not None:
                model = model.steered(vector, self._before.strengths[vector[0]], self._before.steering)
            return model
        finally:
            gc.freeze()
            gc.enable()

    def _report(self, progress: "LoadingProgress") -> None:
        self._progress = progress

    def describe(self) -> str:
        """Return what the model needs, or before that is known the current step, and the time, on one line."""
        return f"{self.describe_briefly()} · {time.monotonic() - self._started_at:.0f} s"

    def describe_briefly(self) -> str:
        progress = self._progress
        step = "" if progress is None else f": {format_needs(progress) or progress.text}"
        return printable(f"loading {self._label}{step}")


class ModelFetch:
    """SmolLM2 being fetched by a thread; the next attempt uses the part that a cancelled one has fetched."""

    def __init__(self, fetch: Callable[..., object]) -> None:
        """Call `fetch`, which reports to its first argument and stops soon after its second one returns True."""
        self._progress: FetchProgress | None = None

        def report(progress: "FetchProgress") -> None:
            self._progress = progress

        def run(cancellation: Cancellation) -> Iterator[None]:
            fetch(report, cancellation)
            yield

        self._thread = GeneratorThread("model-fetch", run)

    @property
    def failure(self) -> str:
        """Why the model could not be fetched, and what to do; the small model can still be played with."""
        error = None if self._thread.cancellation() else self._thread.exception
        return "" if error is None else describe_error(error)

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def cancel(self) -> None:
        self._thread.cancellation.set()
        self._thread.join(QUIT_TIMEOUT)

    def describe(self) -> str:
        """Return the progress on one line, such as `SmolLM2: 34 of 98 MB`."""
        progress = self._progress
        if progress is None or not progress.total_bytes:
            return printable(f"SmolLM2: {'starting' if progress is None else progress.text} …")
        return f"SmolLM2: {progress.done_bytes / 1e6:.0f} of {progress.total_bytes / 1e6:.0f} MB"


def add_recent_model(name: str, recent: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the models used last after another one was used, the latest first."""
    return (name, *(other for other in recent if other != name))[:MAX_RECENT_MODELS]


def known_model_names(recent: Sequence[str]) -> list[str]:
    """Return the names of the models used last, and SmolLM2 if it was fetched."""
    fetched = [SMOLLM2] if pretrained.is_base_stored(SMOLLM2) else []
    return list(dict.fromkeys([*recent, *fetched]))
