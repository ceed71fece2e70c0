"""A search through a run's training text for what drives one unit of its LSTM furthest, in a thread."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.analysis.activations import BATCH, Extremes, Part, extremes
from engine.data.vocabulary import Ids
from engine.errors import RunError
from engine.models.numpy_lstm import Decoder
from engine.runtime.worker import Cancellation, Worker
from lotr_tui.session.training_text import training_data

Unit = tuple[int, int, Part]
"""Layer and unit, both counted from 0, and part."""


class UnitSearch:
    """Begins at once; whoever wants the outcome looks now and then whether it is still `running`."""

    def __init__(self, run: Path, decoder: Decoder, unit: Unit) -> None:
        self.unit = unit
        self.lines: Sequence[Ids] = ()
        """Those searched, once they are read."""
        self.stopped = False
        """Whether it was asked to end early."""
        self._run, self._decoder = run, decoder
        self._steps = self._done = 0
        self._worker = Worker("extremes", self._search).start()

    @property
    def running(self) -> bool:
        """Whether the outcome is still to come."""
        return self._worker.running

    @property
    def share(self) -> float | None:
        """How much of the text was searched, from 0 to 1; None as long as it is being read."""
        return min(1.0, self._done / self._steps) if self._steps else None

    @property
    def failure(self) -> BaseException | None:
        """Why there is no outcome."""
        return self._worker.failure

    def stop(self) -> None:
        """End early, with what was found so far."""
        self.stopped = True
        self._worker.cancel()

    def outcome(self) -> Extremes | None:
        """What was found, given once, when no longer running; None where it failed."""
        return next(iter(self._worker.drain()), None)

    def _search(self, cancellation: Cancellation) -> Iterator[Extremes]:
        data = training_data(self._run)
        if data.vocabulary != self._decoder.vocabulary:
            raise RunError(f"the words of run {self._run.name} are others than this model's")
        self.lines, self._steps = data.train_lines, steps_of(data.train_lines)

        def asked() -> bool:
            self._done += 1
            return cancellation()

        layer, number, part = self.unit
        yield extremes(self._decoder, data.train_lines, layer, number, part, cancelled=asked)


def steps_of(lines: Sequence[Ids]) -> int:
    """How often `extremes` asks whether to go on: after each word of a batch's longest line, and after each batch."""
    longest = sorted((len(line) for line in lines), reverse=True)[::BATCH]
    return sum(longest) + len(longest)
