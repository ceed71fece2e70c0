"""Figure of the last chapter: attention on a typed line, and the same line in models from counts to a real one."""

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import set_cell_size
from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, Static

from engine.analysis.attention import find_attention_model
from engine.analysis.tokenized_text import TokenizedText, tokenize_with_offsets
from engine.data.tokenizers.words import WordTokenizer
from engine.errors import describe_error
from engine.models.attention import AttentionModel
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import format_percent
from lotr_tui.learn.attention_line import EXAMPLE, GOAL, find_example, strongest_earlier
from lotr_tui.learn.compared_models import Comparison, Failed, Progress, Scored, load_comparison
from lotr_tui.learn.line_continuation import LineContinuation, continue_line
from lotr_tui.learn.material import ClassModel, Material
from lotr_tui.screens.attention.kept_text import keep_last_tokens
from lotr_tui.screens.attention.reading import AttentionReading, max_recorded_tokens, read_attention
from lotr_tui.screens.learn.figure import ChapterFigure
from lotr_tui.screens.learn.figures.attention.head_rows import HeadRows
from lotr_tui.screens.learn.figures.attention.model_list import ModelList, ModelRow
from lotr_tui.screens.learn.line_bar import LineBar
from lotr_tui.session.model_abilities import is_slow
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table

MAX_CHARACTERS = 400
"""Maximum length of the line, so that attention is computed within the time between two keys."""
MAX_POSITIONS = 64
"""Maximum number of words of the line with attention, for the same reason."""
MAX_NEXT_TOKENS = 12
"""Tokens of a continuation."""
TYPING_PAUSE = 0.15
"""Seconds without a key before the models continue the line, so that they do not delay the next key."""
BOTH_HEIGHT = 26
"""Rows for attention and models at the same time."""
PENDING = "…"


@dataclass(frozen=True)
class AttentionData:
    """The Transformer whose heads are shown, and the models that are compared."""

    transformer: ClassModel
    attention_model: AttentionModel
    max_tokens: int
    """Maximum number of tokens of a line."""
    eos_per_line: bool
    """True if `<eos>` ends each line."""
    comparison: Comparison
    example: str


class AttentionFigure(ChapterFigure[AttentionData]):
    """The heads of a Transformer on a typed line, and the compared models."""

    DEFAULT_CSS = """
    AttentionFigure #attention { height: 1fr; }
    AttentionFigure #models { height: 1fr; display: none; }
    AttentionFigure.-models #attention { display: none; }
    AttentionFigure.-models #models { display: block; }
    AttentionFigure.-both #attention { display: block; height: auto; max-height: 60%; padding: 1 0; }
    AttentionFigure.-both HeadRows { height: auto; max-height: 100%; }
    AttentionFigure.-both #models { display: block; }
    AttentionFigure.-both #details { margin-top: 1; height: 4; }
    AttentionFigure #header, AttentionFigure #details { padding: 0 1; height: auto; }
    AttentionFigure #header { color: $muted; text-style: $muted-style; height: 1; }
    AttentionFigure #details { height: 3; text-wrap: nowrap; text-overflow: ellipsis; }
    AttentionFigure ModelList { height: 1fr; }
    """
    BINDING_GROUP_TITLE = "Attention"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-attention",
        """
        view | f8 | toggle_view | heads/models | The heads of the Transformer, or the same line in all models
        """,
        show=True,
    )

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._statuses: dict[int, str] = {}
        self._continuations: dict[int, tuple[str, LineContinuation]] = {}
        """Lines and their continuations by the index of the model."""
        self._is_model_chosen = False
        self._attention: BackgroundTask[AttentionReading | None] = BackgroundTask(
            self, "learn-attention", lambda items: self._show_attention(items[-1]), self._report
        )
        self._scoring: BackgroundTask[Progress | Scored | Failed] = BackgroundTask(
            self, "learn-models", self._receive_scores, self._report, self._check_best
        )
        self._continuing: BackgroundTask[tuple[int, str, LineContinuation]] = BackgroundTask(
            self, "learn-continuations", self._receive_continuations, self._report, self._continue_line
        )

    def compose_figure(self) -> ComposeResult:
        """Yield the line, the heads, and the models with what is known of the selected one."""
        yield LineBar(EXAMPLE)
        with Vertical(id="attention"):
            yield HeadRows()
        with Vertical(id="models"):
            yield Static(id="header", markup=False)
            yield ModelList()
            yield Static(id="details", markup=False)

    def load(self, cancelled: Cancellation) -> Generator[str, None, AttentionData]:
        """Load the Transformer and the held-out lines; the compared models are loaded later."""
        transformer = yield from self.material.transformer(cancelled)
        comparison = yield from load_comparison(self.material)
        attention_model = find_attention_model(transformer.model)
        assert attention_model is not None, "the material returns a model with attention"
        own = self.material.session_model
        is_own = own is not None and own.model is transformer.model
        return AttentionData(
            transformer,
            attention_model,
            min(MAX_POSITIONS, max_recorded_tokens(attention_model)),
            own.predicts_eos if own is not None and is_own else True,
            comparison,
            find_example(comparison.lines, transformer.tokenizer),
        )

    def show_data(self, data: AttentionData) -> None:
        """Show the example, and score the models."""
        self.show_note(data.transformer.note)
        line = self.query_one(LineBar)
        line.query_one(Input).max_length = MAX_CHARACTERS
        self._show_key_hints()
        self.query_one(ModelList).styles.max_height = len(data.comparison.models)
        for index, outcome in data.comparison.outcomes.items():
            self._statuses[index] = outcome.reason if isinstance(outcome, Failed) else ""
        if data.example == line.text:
            self._read_line()
        else:
            line.set_text(data.example)
        self._show_models()
        self._scoring.start(data.comparison.iter_events)

    def on_resize(self, event: events.Resize) -> None:
        """Show attention and models together where there is room."""
        self.set_class(event.size.height >= BOTH_HEIGHT, "-both")
        self._show_key_hints()
        self.refresh_bindings()

    def on_unmount(self) -> None:
        """Stop all threads."""
        super().on_unmount()
        for task in (self._attention, self._scoring, self._continuing):
            task.cancel()

    @property
    def is_idle(self) -> bool:
        """True once the heads and all models show the typed line."""
        tasks = (self._attention, self._scoring, self._continuing)
        return super().is_idle and not any(task.is_running for task in tasks)

    def _report(self, error: BaseException) -> None:
        self.notify(describe_error(error), severity="error", markup=False)

    # The typed line

    @property
    def _line(self) -> str:
        """The last line of the typed text."""
        return self.query_one(LineBar).text.rpartition("\n")[2]

    @property
    def _is_own_line(self) -> bool:
        """True if the student has typed a line."""
        assert self.data is not None, "called after the loading"
        return bool(self._line.strip()) and self._line not in (EXAMPLE, self.data.example)

    @on(Input.Changed)
    def _read_line(self) -> None:
        """Compute the attention on the line, and the continuations."""
        if self.data is None:
            return
        if is_slow(self.data.transformer.model):
            self._attention.start(lambda cancelled: iter([self._compute_attention(self._line)]))
        else:
            self._show_attention(self._compute_attention(self._line))
        self._continue_line()
        self._show_models()

    def _compute_attention(self, line: str) -> AttentionReading | None:
        data = self.data
        assert data is not None, "called after the loading"
        tokenizer = data.transformer.tokenizer

        def tokenize(text: str) -> TokenizedText:
            return tokenize_with_offsets(text, tokenizer, eos_per_line=data.eos_per_line)

        tokens = keep_last_tokens(tokenize(line), data.max_tokens, tokenize)
        return read_attention(data.attention_model, tokenizer, tokens) if len(tokens) else None

    def _show_attention(self, reading: AttentionReading | None) -> None:
        self.query_one(HeadRows).show(reading)

    @on(HeadRows.CursorMoved)
    def _check_head(self) -> None:
        """Finish the first part if the selected head looks more than half at one earlier word of a typed line."""
        strongest = strongest_earlier(self.query_one(HeadRows).selected_weights)
        if self._is_own_line and strongest is not None and strongest[1] > GOAL:
            self.finish_part(0)

    # The models

    def _receive_scores(self, items: list[Progress | Scored | Failed]) -> None:
        for item in items:
            match item:
                case Progress(index, text):
                    self._statuses[index] = text
                case Scored(index):
                    self._statuses[index] = ""
                case Failed(index, reason):
                    self._statuses[index] = reason
        if not self._continuing.is_running:
            self._continue_line()
        self._show_models()

    def _continue_line(self) -> None:
        """Continue the line with all models that have not done so."""
        assert self.data is not None, "called after the loading"
        line = self._line
        outcomes = [each for each in self.data.comparison.outcomes.values() if isinstance(each, Scored)]
        missing = [each for each in outcomes if self._continuations.get(each.index, (None,))[0] != line]
        if not missing:
            self._continuing.cancel()
            return

        def iter_continuations(cancelled: Cancellation) -> Iterator[tuple[int, str, LineContinuation]]:
            time.sleep(TYPING_PAUSE)
            for scored in missing:
                if cancelled():
                    return
                yield scored.index, line, continue_line(scored.model, line, MAX_NEXT_TOKENS, cancelled)

        self._continuing.start(iter_continuations)

    def _receive_continuations(self, items: list[tuple[int, str, LineContinuation]]) -> None:
        for index, line, continuation in items:
            self._continuations[index] = line, continuation
        self._show_models()

    def _show_models(self) -> None:
        assert self.data is not None, "called after the loading"
        comparison, line = self.data.comparison, self._line
        rows = []
        for index, compared in enumerate(comparison.models):
            outcome = comparison.outcomes.get(index)
            continued_line, continuation = self._continuations.get(index, ("", None))
            text = self._statuses.get(index, "") or ("" if continuation is None else continuation.text)
            bits = f"{outcome.bits.bits_per_character:.2f}" if isinstance(outcome, Scored) else PENDING
            is_current = isinstance(outcome, Scored) and continued_line == line
            rows.append(ModelRow(compared.name, "-" if isinstance(outcome, Failed) else bits, text, is_current))
        self.query_one(ModelList).show(rows)
        self._show_details()

    @on(ModelList.RowSelected)
    def _select_model(self) -> None:
        self._is_model_chosen = True
        self._show_details()
        self._check_best()

    def _check_best(self) -> None:
        """Finish the second part if the student has selected the model that needs the fewest bits."""
        assert self.data is not None, "called after the loading"
        if self._is_model_chosen and self.query_one(ModelList).cursor == self.data.comparison.best:
            self.finish_part(1)

    def _show_details(self) -> None:
        """Show what the selected model is, how its bits are made up, and its most likely next words."""
        assert self.data is not None, "called after the loading"
        comparison, index = self.data.comparison, self.query_one(ModelList).cursor
        lines = [Content(comparison.models[index].description)]
        outcome = comparison.outcomes.get(index)
        if isinstance(outcome, Scored):
            lines.append(_describe_bits(outcome, len(comparison.lines)))
        if index in self._continuations:
            _, continuation = self._continuations[index]
            tokens = "  ".join(f"{token} {format_percent(prob)}" for token, prob in continuation.next_tokens)
            lines.append(Content.assemble(("most likely next  ", MUTED), tokens))
        self.query_one("#details", Static).update(Content("\n").join(lines))

    # Views

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the key where attention and models are both visible."""
        return action != "toggle_view" or not self.has_class("-both")

    def _show_key_hints(self) -> None:
        """Show the key of the other view where only one of them is visible."""
        takes_turns = not self.has_class("-both")
        heads, header = self.query_one(HeadRows), self.query_one(ModelList).header
        heads.key_hint = "f8 models" if takes_turns else ""
        heads.redraw()
        hint = "f8 heads" if takes_turns else ""
        room = self.size.width - 2 - len(hint)
        self.query_one("#header", Static).update(Content(set_cell_size(header, max(0, room)) + hint))

    @on(HeadRows.KeyHintClicked)
    @on(events.Click, "#header")
    def _toggle_view_by_mouse(self) -> None:
        if not self.has_class("-both"):
            self.action_toggle_view()

    def action_toggle_view(self) -> None:
        """Show the models in place of the heads, or the reverse."""
        self.toggle_class("-models")
        self.query_one(ModelList if self.has_class("-models") else HeadRows).focus()


def _describe_bits(scored: Scored, num_lines: int) -> Content:
    """Return how the bits per character of a model are made up."""
    bits = scored.bits
    text = f" bits per character of {num_lines} held-out lines as written"
    if isinstance(scored.model.tokenizer, WordTokenizer):
        words, writing = bits.token_bits / bits.num_characters, bits.orthography_bits / bits.num_characters
        text = f" = {words:.2f} words + {writing:.2f} capitals, punctuation · {num_lines} held-out lines"
    return Content.assemble((f"{bits.bits_per_character:.2f}", "bold"), text)
