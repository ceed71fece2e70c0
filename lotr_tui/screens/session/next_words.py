"""Search of the complete words that can come next, in a thread."""

import time
from collections.abc import Callable, Iterator

from textual.message_pump import MessagePump

from engine.errors import describe_error
from engine.generation.complete_words import CompleteWordSearch
from engine.generation.sampling import NextTokenProbs
from engine.generation.settings import SamplerSettings
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.session.next_tokens import NextTokenContext

POLL_INTERVAL = 0.02
"""Seconds between two looks at the result of a search."""
UPDATE_INTERVAL = 0.15
"""Seconds until a running search shows the words found so far: long enough that the bars seldom change twice."""
MIN_SHOWN_PROB = 0.005
"""Less likely words and tokens, before and after sampling, are not shown."""


class NextWords:
    """The likeliest complete words after the latest text. What the model has computed for a text is kept."""

    def __init__(
        self,
        owner: MessagePump,
        max_words: int,
        min_words: int,
        show: Callable[[NextTokenContext, SamplerSettings, NextTokenProbs], None],
    ) -> None:
        """Prepare to call `show` with the words after a text, as a widget or screen `owner` shows them.

        Args:
            owner: Widget or screen that calls `cancel` when it is closed.
            max_words: Maximum number of words.
            min_words: Number of words that are searched even if they are unlikely.
            show: Called with the text, the settings and the words, again if more words are found.
        """
        self._owner = owner
        self._max_words, self._min_words = max_words, min_words
        self._show = show
        self._task: BackgroundTask[NextTokenProbs] = BackgroundTask(
            owner, "next-words", self._deliver, self._fail, interval=POLL_INTERVAL
        )
        self._latest: tuple[NextTokenContext, CompleteWordSearch] | None = None
        self._settings = SamplerSettings()

    def search(self, context: NextTokenContext, settings: SamplerSettings) -> None:
        """Show the words after a text: at once if they are known from earlier searches, or else once they are found."""
        is_same_text = self._latest is not None and self._latest[0].is_same_text(context)
        search = self._latest[1] if self._latest is not None and is_same_text else context.search_words()
        self._latest, self._settings = (context, search), settings
        self._task.cancel()
        for words in search.search(settings, self._max_words, MIN_SHOWN_PROB, self._min_words, runs_model=False):
            if words.is_final or is_same_text:
                self._show(context, settings, words)
            if not words.is_final:
                self._task.start(lambda cancellation: self._find(search, settings, cancellation))

    def cancel(self) -> None:
        """Stop the search, and free what the model has computed."""
        self._task.cancel()
        self._latest = None

    def _find(
        self, search: CompleteWordSearch, settings: SamplerSettings, cancellation: Cancellation
    ) -> Iterator[NextTokenProbs]:
        """Yield the words now and then while they are found, and the final ones."""
        update_at = time.monotonic() + UPDATE_INTERVAL
        for words in search.search(settings, self._max_words, MIN_SHOWN_PROB, self._min_words, cancellation):
            if words.is_final or time.monotonic() >= update_at:
                update_at = time.monotonic() + UPDATE_INTERVAL
                yield words

    def _deliver(self, results: list[NextTokenProbs]) -> None:
        if self._latest is not None:
            self._show(self._latest[0], self._settings, results[-1])

    def _fail(self, error: BaseException) -> None:
        self._owner.app.notify(describe_error(error), severity="error", markup=False)
