"""The candidates for the next token or word, which are read in a thread where the model is slow."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from textual.message_pump import MessagePump

from engine.errors import describe_error
from engine.generation.complete_words import CompleteWordSearch
from engine.generation.generate import NextTokenProbs, TextInProgress, next_token_probs
from engine.generation.settings import SamplerSettings
from engine.models.base import AdaptedModel
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask, Debounce
from lotr_tui.session import read_text
from lotr_tui.session.read_text import NextTokenContext, TextReader
from lotr_tui.session.session_model import SessionModel, is_slow
from lotr_tui.session.settings import PreviewUnit

POLL_INTERVAL = 0.02  # seconds between two looks at a result
TYPING_PAUSE = 0.15  # seconds without a key after which a slow model reads the draft
UPDATE_INTERVAL = 0.15  # seconds until a search shows the words found so far, so that the bars seldom change twice
MAX_ESTIMATE_SECONDS = 0.05  # a slower model shows no estimates, which would delay the keys
MIN_SHOWN_PROB = 0.005  # before and after sampling


class Preview:
    """The candidates after the latest text. A text is read once; other settings only choose among its candidates."""

    def __init__(
        self,
        owner: MessagePump,
        reader: TextReader,
        show: Callable[[NextTokenContext, SamplerSettings, NextTokenProbs], None],
        num_candidates: int,
        min_words: int,
        on_completion: Callable[[], None] = lambda: None,
        pause: float = TYPING_PAUSE,
    ) -> None:
        """Call `show` with the candidates, of which `min_words` may be unlikely, and again once more words are found.

        `on_completion` is called once a slow model has completed a draft, which it reads after a `pause`.
        """

        def fail(error: BaseException) -> None:
            owner.app.notify(describe_error(error), severity="error", markup=False)

        self._reader, self._show, self._on_completion = reader, show, on_completion
        self._num_candidates, self._min_words = num_candidates, min_words
        self._completer, self._pause = read_text.WordCompleter(), Debounce(owner, pause, self._read)
        self._reading: BackgroundTask[NextTokenContext | str]
        self._reading = BackgroundTask(owner, "next-token", self._deliver, fail, interval=POLL_INTERVAL)
        self._searching: BackgroundTask[NextTokenProbs]
        self._searching = BackgroundTask(owner, "next-words", self._show_found, fail, interval=POLL_INTERVAL)
        self._text: NextTokenContext | None = None  # that is shown, or that is shown once it is read
        self._context: NextTokenContext | None = None  # that text after it was read, or an estimate
        self._read_texts: tuple[NextTokenContext, NextTokenContext] | None = None  # the latest, before and after it
        self._estimate_seconds = 0.0  # that an estimate has taken since the latest text was read
        self._estimate_limit = MAX_ESTIMATE_SECONDS if pause else -1.0  # without a pause, none is shown
        self._search: CompleteWordSearch | None = None  # in that text; keeps what the model has computed
        self._settings = SamplerSettings()
        self._unit: PreviewUnit = "word"
        self._draft = self._completion = ""
        self._update_at = 0.0  # when words of an unfinished search are shown

    def request(
        self,
        text: NextTokenContext,
        settings: SamplerSettings,
        unit: PreviewUnit,
        draft: str = "",
        is_idle: bool = True,
    ) -> None:
        """Show the candidates after a text, and complete the last word of `draft`.

        A slow model that has not read the text yet does so in a thread after a pause, unless it is not idle, because it
        generates a reply. At another strength it first shows an estimate, for which it reads the last token.
        """
        self._settings, self._unit = settings, unit
        if self._text is not None and text == self._text:
            self.update(settings)
        elif (known := self._reader.find(text)) is not None:
            self._begin(text, known)
        elif not is_slow(text.model):
            self._begin(text, read_text.read_next_token(self._reader, text))
        elif is_idle:
            self._begin(text, self._estimate(text))
            self._draft, self._completion = draft, ""
            self._pause.request()

    def update(self, settings: SamplerSettings) -> None:
        self._settings, context = settings, self._context
        if context is None:
            return
        if self._search is not None:
            self._searching.cancel()

        def text(settings: SamplerSettings) -> TextInProgress:
            is_first = context.is_first_token
            return TextInProgress(context.model, context.ids, settings, state=context.state, is_first_token=is_first)

        if self._unit == "token" or not context.model.tokenizer.is_open:
            self._search = None
            self._show(context, settings, next_token_probs(text(settings), self._num_candidates))
            return
        is_new = self._search is None
        search = self._search = self._search or CompleteWordSearch(text(SamplerSettings()))
        arguments = settings, self._num_candidates, MIN_SHOWN_PROB, self._min_words
        for words in search.search(*arguments, runs_model=False):  # the words that are known already
            if words.is_final or not is_new:
                self._show(context, settings, words)
            if not words.is_final:
                self._update_at = time.monotonic() + UPDATE_INTERVAL
                self._searching.start(lambda cancellation: search.search(*arguments, cancellation))

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
        self._text, self._context, self._search = text, context, None
        if text is None:
            self._read_texts = None
        elif context is not None:
            self._read_texts = self._read_texts if context.is_estimate else (text, context)
            self.update(self._settings)

    def _estimate(self, text: NextTokenContext) -> NextTokenContext | None:
        """Return what another strength shows, unless that would delay the keys."""
        before, read = self._read_texts or (None, None)
        model = text.model
        if before is None or read is None or replace(before, model=model) != text:
            return None
        if not isinstance(model, AdaptedModel) or not read.ids or self._estimate_seconds > self._estimate_limit:
            return None
        started = time.perf_counter()
        estimate = read.estimate(model)
        self._estimate_seconds = time.perf_counter() - started
        return estimate

    def _read(self) -> None:
        text, draft = self._text, self._draft
        if text is None or (self._context is not None and not self._context.is_estimate):  # another was shown meanwhile
            return

        def source(cancellation: Cancellation) -> Iterator[NextTokenContext | str]:
            context = read_text.read_next_token(self._reader, text, cancellation)
            if context is not None:
                yield context
                yield self._completer.complete(text.model, draft, cancellation)

        self._reading.start(source)

    def _deliver(self, items: list[NextTokenContext | str]) -> None:
        for item in items:
            if isinstance(item, NextTokenContext):
                if self._text is not None:
                    self._context, self._read_texts, self._estimate_seconds = item, (self._text, item), 0.0
                self._searching.cancel()
                self._search = None
                self.update(self._settings)
            elif item:
                self._completion = item
                self._on_completion()

    def _show_found(self, found: list[NextTokenProbs]) -> None:
        """Show the words that a search has found, now and then and at its end."""
        if self._context is not None and (found[-1].is_final or time.monotonic() >= self._update_at):
            self._update_at = time.monotonic() + UPDATE_INTERVAL
            self._show(self._context, self._settings, found[-1])
