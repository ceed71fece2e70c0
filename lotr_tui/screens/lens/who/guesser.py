"""Posterior over the cast for the line that is typed, computed in a thread word by word."""

import threading
from collections.abc import Callable, Iterator

from textual.message_pump import MessagePump

from engine.analysis.speakers import SpeakerGuess, SpeakerPosterior
from engine.data.scripts import Turn
from engine.errors import describe_error
from engine.generation.prompt import DecoderState
from engine.generation.turns import read_turns
from engine.models.dialogue import DialogueModel
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.screens.lens.who.line import UnknownLine

POLL_INTERVAL = 0.02
"""Seconds between two looks at what the thread has computed."""
FIRST_WORDS = 4
"""Number of words that are read before the first result of a new text; each further result reads twice as many."""


class SpeakerGuesser:
    """Guesses of who says the current line, one after the other, each for a longer part of the line.

    Only what has changed since the line before is read.
    """

    def __init__(
        self,
        owner: MessagePump,
        model: DialogueModel,
        on_guess: Callable[[UnknownLine, SpeakerGuess], None],
        on_error: Callable[[str], None],
    ) -> None:
        """Prepare to guess with a model that has a cast; timers of `owner` call the other functions."""
        self._model = model
        self._on_error = on_error
        self._lock = threading.Lock()  # of all fields below, which the threads of two lines may want
        self._context: tuple[Turn, ...] = ()
        self._state: DecoderState | None = None
        self._posterior: SpeakerPosterior | None = None
        self._words: list[str] = []
        self._task: BackgroundTask[tuple[UnknownLine, SpeakerGuess]] = BackgroundTask(
            owner, "who", lambda guesses: on_guess(*guesses[-1]), self._fail, interval=POLL_INTERVAL
        )

    @property
    def is_idle(self) -> bool:
        """True if the guess for the current line is complete."""
        return not self._task.is_running

    def guess(self, line: UnknownLine) -> None:
        """Guess who says a line, in a thread, and drop the line before."""

        def source(cancellation: Cancellation) -> Iterator[tuple[UnknownLine, SpeakerGuess]]:
            words = line.text.split()
            num_read, step = 0, FIRST_WORDS
            while not num_read or num_read < len(words):
                with self._lock:
                    if cancellation():
                        return
                    num_read = min(len(words), max(num_read, self._num_known(line, words)) + step)
                    guess = self._update(line, words[:num_read])
                yield line, guess
                step *= 2
                if not words:
                    return

        self._task.start(source)

    def cancel(self) -> None:
        """Stop the thread."""
        self._task.cancel()

    def _num_known(self, line: UnknownLine, words: list[str]) -> int:
        """Return the number of words at the start of a line that have been read."""
        if self._posterior is None or line.context != self._context:
            return 0
        pairs = zip(self._words, words, strict=False)
        return next((i for i, (old, new) in enumerate(pairs) if old != new), min(len(self._words), len(words)))

    def _update(self, line: UnknownLine, words: list[str]) -> SpeakerGuess:
        """Read the context, if it has changed, and the words."""
        if self._posterior is None or line.context != self._context:
            is_longer = self._context and line.context[: len(self._context)] == self._context
            start = len(self._context) if is_longer else 0
            state = self._state if is_longer else None
            self._posterior = None  # an error leaves no posterior of another context
            self._state = read_turns(self._model, line.context[start:], state) if line.context else None
            self._context = line.context
            self._posterior = SpeakerPosterior(self._model, self._state)
        self._words = words
        is_complete = line.is_complete and len(words) == len(line.text.split())
        return self._posterior.update(" ".join(words), is_complete=is_complete)

    def _fail(self, error: BaseException) -> None:
        self._on_error(f"Cannot guess the speaker: {describe_error(error)}")
