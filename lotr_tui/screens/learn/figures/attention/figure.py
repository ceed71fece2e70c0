"""Figure of the last chapter: attention on a typed line, and the same line in models from counts to a real one."""

import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar

from textual import events, on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical
from textual.widgets import Input

from engine.analysis.activations import find_attention_model
from engine.analysis.tokenized_text import TokenizedText, tokenize_with_offsets
from engine.models.attention import AttentionModel
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.learn.attention_line import EXAMPLE, GOAL, strongest_earlier
from lotr_tui.learn.compared_models import Comparison, load_comparison
from lotr_tui.learn.example_line import find_example
from lotr_tui.learn.material import ClassModel, Material
from lotr_tui.screens.inspect.attention import AttentionReading, keep_last_tokens, max_recorded_tokens, read_attention
from lotr_tui.screens.learn.figure import ChapterFigure
from lotr_tui.screens.learn.figures.attention.head_rows import HeadRows
from lotr_tui.screens.learn.figures.attention.model_list import ModelList
from lotr_tui.screens.learn.figures.attention.models_view import ModelsView
from lotr_tui.screens.learn.line_bar import LineBar
from lotr_tui.session.session_model import find_cast, is_slow
from lotr_tui.widgets.bindings import binding_table

MAX_CHARACTERS = 400
"""Maximum length of the line, so that attention is computed within the time between two keys."""
MAX_POSITIONS = 64
"""Maximum number of words of the line with attention, for the same reason."""
BOTH_HEIGHT = 26
"""Rows for attention and models at the same time."""


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

    def read_line(self, line: str) -> AttentionReading | None:
        """Compute the attention on a line; None if the line has no token."""
        tokenizer, cast = self.transformer.tokenizer, find_cast(self.transformer.model)

        def tokenize(text: str) -> TokenizedText:
            return tokenize_with_offsets(text, tokenizer, eos_per_line=self.eos_per_line, cast=cast)

        tokens = keep_last_tokens(tokenize(line), self.max_tokens, tokenize)
        return read_attention(self.attention_model, tokenizer, tokens) if len(tokens) else None


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
        self._reading = threading.Lock()
        """Held while a slow Transformer reads a line, so that it reads one at a time."""
        self._attention: BackgroundTask[AttentionReading | None] = BackgroundTask(
            self, "learn-attention", lambda items: self._show_attention(items[-1]), self.show_failure
        )

    def compose_figure(self) -> ComposeResult:
        """Yield the line, the heads, and the models."""
        yield LineBar(EXAMPLE, max_length=MAX_CHARACTERS)
        with Vertical(id="attention"):
            yield HeadRows()
        yield ModelsView(self.show_failure, id="models")

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
            find_example(EXAMPLE, comparison.lines, transformer.tokenizer),
        )

    def show_data(self, data: AttentionData) -> None:
        """Show the example, and score the models."""
        self.show_note(data.transformer.note)
        self._show_key_hints()
        self.query_one(LineBar).set_example(data.example)
        self._read_line()
        self.query_one(ModelsView).show(data.comparison, self._line)

    def on_resize(self, event: events.Resize) -> None:
        """Show attention and models together where there is room."""
        self.set_class(event.size.height >= BOTH_HEIGHT, "-both")
        self._show_key_hints()
        self.refresh_bindings()

    def on_unmount(self) -> None:
        """Stop the thread."""
        self._attention.cancel()

    @property
    def is_idle(self) -> bool:
        """True once the heads and all models show the typed line."""
        return super().is_idle and not self._attention.is_running and self.query_one(ModelsView).is_idle

    # The typed line

    @property
    def _line(self) -> str:
        """The last line of the typed text."""
        return self.query_one(LineBar).text.rpartition("\n")[2]

    @on(Input.Changed)
    def _change_line(self) -> None:
        if self.data is not None:
            self._read_line()
            self.query_one(ModelsView).continue_line(self._line)

    def _read_line(self) -> None:
        """Compute the attention on the line, in a thread if that takes long."""
        assert self.data is not None, "called after the loading"
        data, line = self.data, self._line
        if not is_slow(data.transformer.model):
            self._show_attention(data.read_line(line))
            return

        def read(cancelled: Cancellation) -> Iterator[AttentionReading | None]:
            with self._reading:
                if not cancelled():
                    yield data.read_line(line)

        self._attention.start(read)

    def _show_attention(self, reading: AttentionReading | None) -> None:
        self.query_one(HeadRows).show(reading)

    @on(HeadRows.CursorMoved)
    def _check_head(self) -> None:
        """Finish the first part if the selected head looks more than half at one earlier word of a typed line."""
        strongest = strongest_earlier(self.query_one(HeadRows).selected_weights)
        if self.query_one(LineBar).is_edited and strongest is not None and strongest[1] > GOAL:
            self.finish_part(0)

    @on(ModelsView.BestSelected)
    def _finish_comparison(self) -> None:
        self.finish_part(1)

    # Views

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the key where attention and models are both visible."""
        return action != "toggle_view" or not self.has_class("-both")

    def _show_key_hints(self) -> None:
        """Show the key of the other view where only one of them is visible."""
        takes_turns = not self.has_class("-both")
        heads = self.query_one(HeadRows)
        heads.key_hint = "f8 models" if takes_turns else ""
        heads.redraw()
        self.query_one(ModelsView).show_key_hint("f8 heads" if takes_turns else "", self.size.width)

    @on(HeadRows.KeyHintClicked)
    @on(events.Click, "#header")
    def _toggle_view_by_mouse(self) -> None:
        if not self.has_class("-both"):
            self.action_toggle_view()

    def action_toggle_view(self) -> None:
        """Show the models in place of the heads, or the reverse."""
        self.toggle_class("-models")
        self.query_one(ModelList if self.has_class("-models") else HeadRows).focus()
