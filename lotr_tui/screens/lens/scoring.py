"""Scoring of a text by a model and by the Kneser-Ney baseline of its run, in threads."""

from collections.abc import Callable, Iterator
from pathlib import Path

from lotr_tui.screens.text.layout import Page
from textual.message_pump import MessagePump

from engine.analysis.token_scores import TokenScores
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.errors import describe_error
from engine.models.base import LanguageModel
from engine.models.ngram import KneserNey
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.session.session_model import find_cast
from lotr_tui.session.training_text import load_kneser_ney

POLL_INTERVAL = 0.1
"""Seconds between two repaints of the scores."""


class LensScorer:
    """Scores of the current text so far, by the model ("network") and by the baseline ("Kneser-Ney").

    Scores of tokens that the previous text starts with are kept.
    """

    def __init__(
        self,
        owner: MessagePump,
        model: LanguageModel,
        on_page: Callable[[Page], None],
        on_progress: Callable[[], None],
        on_baseline: Callable[[], None],
        on_error: Callable[[str], None],
    ) -> None:
        """Prepare to score texts with `model`; timers of `owner` poll the threads and call the other functions.

        `on_page` gets each new text once it is tokenized, and `network_scores` belongs to that text then. `on_progress`
        is called for new scores, `on_baseline` once the baseline is loaded or `baseline_status` says why there is none,
        and `on_error` with a message if a model fails.
        """
        self.network_scores: TokenScores | None = None
        self.baseline_scores: TokenScores | None = None
        self.baseline: LanguageModel | None = None
        self.baseline_status = "Kneser-Ney counts are being loaded"
        """Why there is no baseline."""
        self._model = model
        self._on_page = on_page
        self._on_progress = on_progress
        self._on_baseline = on_baseline
        self._on_error = on_error
        self._network_task: BackgroundTask[tuple[Page, TokenScores]] = BackgroundTask(
            owner, "lens", self._take_network_items, self._fail, interval=POLL_INTERVAL
        )
        self._baseline_task: BackgroundTask[int] = BackgroundTask(
            owner, "lens-kneser-ney", lambda _: on_progress(), self._fail, interval=POLL_INTERVAL
        )
        self._loading_task: BackgroundTask[KneserNey] = BackgroundTask(
            owner, "kneser-ney", self._take_baseline, self._fail_loading, on_baseline
        )
        self._tasks = (self._network_task, self._baseline_task, self._loading_task)

    @property
    def is_loading_baseline(self) -> bool:
        """True while the baseline is being loaded."""
        return self._loading_task.is_running

    @property
    def is_idle(self) -> bool:
        """True if nothing is being loaded or scored."""
        return not any(task.is_running for task in self._tasks)

    def load_baseline(self, run: Path | None) -> None:
        """Load the Kneser-Ney baseline of a run in a thread."""
        if run is None:
            self._reject_baseline("this model has no run with training data to count")
        else:
            self._loading_task.start(lambda _: iter([load_kneser_ney(run)]))

    def score(self, text: str, *, eos_per_line: bool) -> None:
        """Tokenize and score a sanitized text in a thread, and drop the text before it."""
        self._network_task.cancel()
        self._baseline_task.cancel()
        model, previous = self._model, self.network_scores

        def source(cancellation: Cancellation) -> Iterator[tuple[Page, TokenScores]]:
            tokens = tokenize_with_offsets(text, model.tokenizer, eos_per_line=eos_per_line, cast=find_cast(model))
            page, scores = Page.from_words(tokens), TokenScores(tokens, model.tokenizer, previous)
            yield page, scores
            for _ in scores.read(model, cancellation):
                yield page, scores

        self._network_task.start(source)

    def cancel(self) -> None:
        """Stop all threads."""
        for task in self._tasks:
            task.cancel()

    def _take_network_items(self, items: list[tuple[Page, TokenScores]]) -> None:
        page, scores = items[-1]
        if scores is not self.network_scores:
            self.network_scores = scores
            self._on_page(page)
            self._score_with_baseline()
        self._on_progress()

    def _score_with_baseline(self) -> None:
        """Score the current text with the baseline, once both are there."""
        if self.baseline is None or self.network_scores is None:
            return
        model, tokens = self.baseline, self.network_scores.tokens
        scores = self.baseline_scores = TokenScores(tokens, model.tokenizer, self.baseline_scores)
        self._baseline_task.start(lambda cancellation: scores.read(model, cancellation))

    def _take_baseline(self, models: list[KneserNey]) -> None:
        [model] = models
        if model.tokenizer == self._model.tokenizer:
            self.baseline = model
            self._score_with_baseline()
        else:
            self.baseline_status = "no Kneser-Ney: the run has another vocabulary than this model"

    def _fail_loading(self, error: BaseException) -> None:
        self._reject_baseline(describe_error(error))

    def _reject_baseline(self, reason: str) -> None:
        self.baseline_status = f"no Kneser-Ney: {reason}"
        self._on_baseline()

    def _fail(self, error: BaseException) -> None:
        self._on_error(f"Cannot score the text: {describe_error(error)}")
