"""Search of a run's training text for the tokens on which one LSTM unit is highest and lowest."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from engine.analysis.activations import BATCH_SIZE, ActivationName, TopActivations, find_top_activations
from engine.data.corpus import Line
from engine.data.scripts import speaker_head
from engine.data.speakers import SOMEONE
from engine.data.tokenizers.base import TokenIds
from engine.models.numpy_lstm import NumpyLSTM
from engine.runtime.worker import Cancellation
from lotr_tui.formatting import token_noun
from lotr_tui.session.training_text import load_matching_training_data

UnitId = tuple[int, int, ActivationName]
"""Layer and unit, both counted from 0, and the activation."""


class UnitSearch:
    """Search for the top activations of one unit. Its generator `results` runs in a thread."""

    def __init__(self, run: Path, decoder: NumpyLSTM, unit: UnitId) -> None:
        self.unit = unit
        self._source_lines: Sequence[Line] = ()
        self._has_speakers = False
        self._run, self._decoder = run, decoder
        self._total_steps = self._completed_steps = 0

    @property
    def token_noun(self) -> str:
        """Name of a token of the model in the interface."""
        return token_noun(self._decoder.tokenizer)

    @property
    def progress(self) -> float | None:
        """Fraction of the text searched, from 0 to 1; None while the text is being loaded."""
        return min(1.0, self._completed_steps / self._total_steps) if self._total_steps else None

    def line_text(self, line_index: int) -> str:
        """Return a searched line as written in the corpus; it may have line breaks that the model did not read.

        In dialogue mode, the line begins with the name of its speaker.
        """
        line = self._source_lines[line_index]
        return f"{speaker_head(line.speaker or SOMEONE)} {line.text}" if self._has_speakers else line.text

    def results(self, cancellation: Cancellation) -> Iterator[TopActivations]:
        """Load the training text, search it, and yield the one result.

        A cancelled search yields the result of the tokens searched so far.

        Raises:
            RunError: If the run is damaged, or its vocabulary differs from the model's.
            CorpusError: If the corpus is missing or has changed.
        """
        data = load_matching_training_data(self._run, self._decoder.tokenizer)
        self._source_lines, self._total_steps = data.train_source_lines, count_search_steps(data.train_lines)
        self._has_speakers = bool(data.cast)

        def count_step() -> bool:
            self._completed_steps += 1
            return cancellation()

        layer, unit, activation = self.unit
        yield find_top_activations(self._decoder, data.train_lines, layer, unit, activation, cancelled=count_step)


def count_search_steps(lines: Sequence[TokenIds]) -> int:
    """Return how often `find_top_activations` checks for cancellation.

    It checks after each token of a batch's longest line, and after each batch.
    """
    longest = sorted((len(line) for line in lines), reverse=True)[::BATCH_SIZE]
    return sum(longest) + len(longest)
