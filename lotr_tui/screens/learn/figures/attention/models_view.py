"""The compared models: their bits per character, how each continues the typed line, and details of the selected one."""

import threading
from collections.abc import Callable, Iterator

from rich.cells import set_cell_size
from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from engine.data.tokenizers.words import WordTokenizer
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import MISSING, format_percent
from lotr_tui.learn.compared_models import Comparison, FailedModel, ModelProgress, ScoredModel
from lotr_tui.learn.line_continuation import LineContinuation, continue_line
from lotr_tui.screens.learn.figures.attention.model_list import ModelList, ModelRow
from lotr_tui.theme import MUTED

MAX_NEXT_TOKENS = 12
"""Tokens of a continuation."""
TYPING_PAUSE = 0.15
"""Seconds without a key before the models continue the line, so that they do not delay the next key."""
PENDING = "…"
ON_REQUEST = "enter loads it: 135 M weights"
"""Text in place of the continuation of a large model that the student has not asked for."""


class ModelsView(Vertical):
    """Headings, one row for each compared model, and details of the selected one. Posts `BestSelected`."""

    DEFAULT_CSS = """
    ModelsView > #header { padding: 0 1; height: 1; color: $muted; text-style: $muted-style; }
    ModelsView > #details { padding: 0 1; height: 3; text-wrap: nowrap; text-overflow: ellipsis; }
    ModelsView > ModelList { height: 1fr; }
    """

    class BestSelected(Message):
        """Posted when the user has selected the model that needs the fewest bits, and all models are scored."""

    def __init__(self, on_error: Callable[[BaseException], None], *, id: str) -> None:
        """Create an empty view; `on_error` shows why a thread has failed."""
        super().__init__(id=id)
        self._comparison: Comparison | None = None
        self._line = ""
        """Line that the models continue."""
        self._statuses: dict[int, str] = {}
        """Progress, or the reason of a failure, by the index of the model."""
        self._continuations: dict[int, tuple[str, LineContinuation]] = {}
        """Lines and their continuations by the index of the model."""
        self._is_model_chosen = False
        self._reading = threading.Lock()
        """Held while a model continues a line, so that slow models continue one at a time."""
        self._scoring: BackgroundTask[ModelProgress | ScoredModel | FailedModel] = BackgroundTask(
            self, "learn-models", self._receive_scores, on_error, self._end_scoring
        )
        self._continuing: BackgroundTask[tuple[int, str, LineContinuation]] = BackgroundTask(
            self, "learn-continuations", self._receive_continuations, on_error, self._continue_line
        )

    def compose(self) -> ComposeResult:
        """Yield the headings, the models and the details."""
        yield Static(id="header", markup=False)
        yield ModelList()
        yield Static(id="details", markup=False)

    def show(self, comparison: Comparison, line: str) -> None:
        """Show the models with a line to continue, and score them."""
        self._comparison, self._line = comparison, line
        self.query_one(ModelList).styles.max_height = len(comparison.models)
        for outcome in comparison.outcomes.values():
            self._take_event(outcome)
        self._continue_line()
        self._show_models()
        self._scoring.start(comparison.iter_events)

    def continue_line(self, line: str) -> None:
        """Continue another line with all models."""
        self._line = line
        self._continue_line()
        self._show_models()

    def show_key_hint(self, hint: str, width: int) -> None:
        """Show the headings with `hint` at their right end, in a view of `width` columns."""
        room = width - 2 - len(hint)
        header = set_cell_size(self.query_one(ModelList).header, max(0, room))
        self.query_one("#header", Static).update(Content(header + hint))

    def on_unmount(self) -> None:
        """Stop the threads."""
        self._scoring.cancel()
        self._continuing.cancel()

    @property
    def is_idle(self) -> bool:
        """True once all models are scored and show the line."""
        return not self._scoring.is_running and not self._continuing.is_running

    # Threads

    def _take_event(self, event: ModelProgress | ScoredModel | FailedModel) -> None:
        match event:
            case ModelProgress(index, text):
                self._statuses[index] = text
            case FailedModel(index, reason):
                self._statuses[index] = reason
            case ScoredModel(index):
                self._statuses[index] = ""

    def _receive_scores(self, items: list[ModelProgress | ScoredModel | FailedModel]) -> None:
        for item in items:
            self._take_event(item)
        if not self._continuing.is_running:
            self._continue_line()
        self._show_models()

    def _end_scoring(self) -> None:
        """Score the models that were asked for meanwhile."""
        if self._comparison is not None and self._comparison.missing:
            self._scoring.start(self._comparison.iter_events)
        self._check_best()

    @on(ModelList.LoadRequested)
    def _load_selected(self) -> None:
        """Load and score the selected model, if it waits for that."""
        comparison, index = self._comparison, self.query_one(ModelList).cursor
        if comparison is None or comparison.is_wanted(index):
            return
        comparison.requested |= {index}
        self._statuses[index] = f"loading {comparison.models[index].name} …"
        if not self._scoring.is_running:
            self._scoring.start(comparison.iter_events)
        self._show_models()

    def _continue_line(self) -> None:
        """Continue the line with all models that have not done so."""
        if self._comparison is None:
            return
        line = self._line
        missing = [
            scored
            for scored in self._comparison.scored_models
            if self._continuations.get(scored.index, (None,))[0] != line
        ]
        if not missing:
            self._continuing.cancel()
            return

        def iter_continuations(cancelled: Cancellation) -> Iterator[tuple[int, str, LineContinuation]]:
            cancelled.wait(TYPING_PAUSE)
            for scored in missing:
                with self._reading:
                    if cancelled():
                        return
                    continuation = continue_line(scored.model, line, MAX_NEXT_TOKENS, cancelled)
                yield scored.index, line, continuation

        self._continuing.start(iter_continuations)

    def _receive_continuations(self, items: list[tuple[int, str, LineContinuation]]) -> None:
        for index, line, continuation in items:
            self._continuations[index] = line, continuation
        self._show_models()

    # Content

    def _show_models(self) -> None:
        if self._comparison is None:
            return
        rows = [self._model_row(self._comparison, index) for index in range(len(self._comparison.models))]
        self.query_one(ModelList).show(rows)
        self._show_details()

    def _model_row(self, comparison: Comparison, index: int) -> ModelRow:
        outcome = comparison.outcomes.get(index)
        continued_line, continuation = self._continuations.get(index, ("", None))
        text = self._statuses.get(index, "") or ("" if continuation is None else continuation.text)
        bits = MISSING if isinstance(outcome, FailedModel) else PENDING
        if not comparison.is_wanted(index):
            bits, text = MISSING, ON_REQUEST
        if isinstance(outcome, ScoredModel):
            bits = f"{outcome.bits.bits_per_character:.2f}"
        is_current = isinstance(outcome, ScoredModel) and continued_line == self._line
        return ModelRow(comparison.models[index].name, bits, text, is_current)

    def _show_details(self) -> None:
        """Show what the selected model is, how its bits are made up, and its most likely next words."""
        if self._comparison is None:
            return
        comparison, index = self._comparison, self.query_one(ModelList).cursor
        lines = [Content(comparison.models[index].description)]
        outcome = comparison.outcomes.get(index)
        if isinstance(outcome, ScoredModel):
            lines.append(_describe_bits(outcome, len(comparison.lines)))
        if index in self._continuations:
            _, continuation = self._continuations[index]
            tokens = "  ".join(f"{token} {format_percent(prob)}" for token, prob in continuation.next_tokens)
            lines.append(Content.assemble(("most likely next  ", MUTED), tokens))
        self.query_one("#details", Static).update(Content("\n").join(lines))

    @on(ModelList.RowSelected)
    def _select_model(self) -> None:
        self._is_model_chosen = True
        self._show_details()
        self._check_best()

    def _check_best(self) -> None:
        best = None if self._comparison is None else self._comparison.best
        is_best = best is not None and self.query_one(ModelList).cursor == best
        if self._is_model_chosen and is_best and self._line.strip():
            self.post_message(self.BestSelected())


def _describe_bits(scored: ScoredModel, num_lines: int) -> Content:
    """Return how the bits per character of a model are made up."""
    bits = scored.bits
    text = f" bits per character of {num_lines} held-out lines as written"
    if isinstance(scored.model.tokenizer, WordTokenizer):
        words, writing = bits.token_bits / bits.num_characters, bits.orthography_bits / bits.num_characters
        text = f" = {words:.2f} words + {writing:.2f} capitals, punctuation · {num_lines} held-out lines"
    return Content.assemble((f"{bits.bits_per_character:.2f}", "bold"), text)
