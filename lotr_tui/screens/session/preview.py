"""Candidates after a text: tokens at once, words once they are found, in a thread if a model is slow."""

import time
from collections.abc import Callable, Iterator

from textual.message_pump import MessagePump
from textual.timer import Timer

from engine.errors import describe_error
from engine.generation.complete_words import CompleteWordSearch
from engine.generation.generate import NextTokenProbs
from engine.generation.settings import SamplerSettings
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask, is_closed
from lotr_tui.session.read_text import NextTokenContext, TextReader, WordCompleter, read_next_token
from lotr_tui.session.session_model import SessionModel, is_slow
from lotr_tui.session.settings import PreviewUnit

POLL_INTERVAL = 0.02  # seconds between two looks at a result
TYPING_PAUSE = 0.15  # seconds without a key after which a slow model reads the draft
UPDATE_INTERVAL = 0.15  # seconds until a search shows the words found so far, so that the bars seldom change twice
MIN_SHOWN_PROB = 0.005  # before and after sampling

ShowCandidates = Callable[[NextTokenContext, SamplerSettings, NextTokenProbs], None]


class Preview:
    """The candidates after the latest text. A text is read once; other settings only choose among its candidates."""

    def __init__(
        self,
        owner: MessagePump,
        show: ShowCandidates,
        num_candidates: int,
        min_words: int,
        on_completion: Callable[[], None] = lambda: None,
        *,
        reader: TextReader,
    ) -> None:
        """Prepare to call `show` with up to `num_candidates`, again if more words are found.

        The screen or widget `owner` calls `cancel` when it is closed. `min_words` are searched even if they are
        unlikely. `on_completion` is called once a slow model has completed a draft.
        """
        self._reader = reader
        self._owner, self._show, self._on_completion = owner, show, on_completion
        self._num_candidates, self._min_words = num_candidates, min_words
        self._completer = WordCompleter()
        self._reading: BackgroundTask[NextTokenContext | str] = BackgroundTask(
            owner, "next-token", self._deliver, self._fail, interval=POLL_INTERVAL
        )
        self._searching: BackgroundTask[NextTokenProbs] = BackgroundTask(
            owner, "next-words", lambda found: self._show_found(found[-1]), self._fail, interval=POLL_INTERVAL
        )
        self._timer: Timer | None = None
        self._text: NextTokenContext | None = None  # that is shown, or that is shown once it is read
        self._context: NextTokenContext | None = None  # that text after it was read
        self._search: CompleteWordSearch | None = None  # in that text; keeps what the model has computed
        self._settings = SamplerSettings()
        self._unit: PreviewUnit = "word"
        self._draft = self._completion = ""

    def request(
        self,
        text: NextTokenContext,
        settings: SamplerSettings,
        unit: PreviewUnit,
        draft: str = "",
        *,
        may_read: bool = True,
        pause: float = TYPING_PAUSE,
    ) -> None:
        """Show the candidates after a text: a slow model that has not read it yet does so in a thread after a pause.

        The last word of `draft` is completed as well. `may_read` is False to leave a slow model alone, because it
        generates a reply.
        """
        self._settings, self._unit = settings, unit
        if self._text is not None and text.is_same_text(self._text):
            self.update(settings)
        elif (known := self._reader.find(text)) is not None:
            self._begin(text, known)
        elif not is_slow(text.model):
            self._begin(text, read_next_token(self._reader, text))
        elif may_read:
            self._begin(text, None)
            self._draft, self._completion = draft, ""
            self._timer = self._owner.set_timer(pause, self._read)

    def update(self, settings: SamplerSettings) -> None:
        """Show the candidates after the same text with other settings."""
        self._settings, context, unit = settings, self._context, self._unit
        if context is None:
            return
        self._searching.cancel()
        if unit == "token" or not context.model.tokenizer.is_open:
            self._search = None
            self._show(context, settings, context.token_probs(settings, self._num_candidates))
            return
        is_new = self._search is None
        search = self._search = self._search or context.search_words()
        for words in search.search(settings, self._num_candidates, MIN_SHOWN_PROB, self._min_words, runs_model=False):
            if words.is_final or not is_new:
                self._show(context, settings, words)
            if not words.is_final:
                self._searching.start(lambda cancellation: self._find_words(search, settings, cancellation))

    def complete(self, session_model: SessionModel, text: str) -> str:
        """Return the rest of the last word of a typed text; of a slow model only if it is known already."""
        if not session_model.is_slow:
            return self._completer.complete(session_model.model, text)
        known = self._draft + self._completion
        is_known = self._completion and text.startswith(self._draft) and known.startswith(text)
        return known[len(text) :] if is_known else ""

    def cancel(self) -> None:
        """Stop reading, show nothing more until the next request, and free what the model has computed."""
        self._begin(None, None)

    def _begin(self, text: NextTokenContext | None, context: NextTokenContext | None) -> None:
        self._reading.cancel()
        self._searching.cancel()
        if self._timer is not None:
            self._timer.stop()
        self._timer = None
        self._text, self._context, self._search = text, context, None
        if context is not None:
            self.update(self._settings)

    def _read(self) -> None:
        text, draft = self._text, self._draft
        if text is None or is_closed(self._owner):
            return

        def source(cancellation: Cancellation) -> Iterator[NextTokenContext | str]:
            context = read_next_token(self._reader, text, cancellation)
            if context is not None:
                yield context
                yield self._completer.complete(text.model, draft, cancellation)

        self._reading.start(source)

    def _deliver(self, items: list[NextTokenContext | str]) -> None:
        for item in items:
            if isinstance(item, NextTokenContext):
                self._context = item
                self.update(self._settings)
            elif item:
                self._completion = item
                self._on_completion()

    def _find_words(
        self, search: CompleteWordSearch, settings: SamplerSettings, cancellation: Cancellation
    ) -> Iterator[NextTokenProbs]:
        """Yield the words now and then while they are found, and the final ones."""
        update_at = time.monotonic() + UPDATE_INTERVAL
        for words in search.search(settings, self._num_candidates, MIN_SHOWN_PROB, self._min_words, cancellation):
            if words.is_final or time.monotonic() >= update_at:
                update_at = time.monotonic() + UPDATE_INTERVAL
                yield words

    def _show_found(self, words: NextTokenProbs) -> None:
        if self._context is not None:
            self._show(self._context, self._settings, words)

    def _fail(self, error: BaseException) -> None:
        self._owner.app.notify(describe_error(error), severity="error", markup=False)
