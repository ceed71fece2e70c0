"""Attention screen: weights of the heads of a Transformer for each token of a text, and predictions of its layers."""

from typing import ClassVar, Literal, get_args

import numpy as np
from lotr_tui.screens.attention.attended_list import AttendedList
from lotr_tui.screens.attention.head_along_text import HEADER, HeadAlongText
from lotr_tui.screens.attention.kept_text import keep_last_tokens
from lotr_tui.screens.attention.strip_columns import shade_levels
from lotr_tui.screens.attention.strips import AttentionStrips, row_label
from lotr_tui.screens.attention.text_view import AttentionTextView
from lotr_tui.screens.text.layout import Page
from lotr_tui.screens.text.screen import TextInputScreen
from lotr_tui.screens.text.text_input import TextInputBar
from lotr_tui.screens.text.token_names import describe_word_around
from lotr_tui.screens.text.view import TokenTextView
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Rule

from engine.analysis.activations import find_attention_model
from engine.analysis.tokenized_text import TokenizedText
from lotr_tui.formatting import plural, token_noun
from lotr_tui.screens.attention.layer_predictions import LayerPredictions
from lotr_tui.screens.attention.lens_pane import LogitLensPane
from lotr_tui.screens.attention.reading import (
    ROLLOUT,
    AttentionReading,
    HeadId,
    max_recorded_tokens,
    read_attention,
)
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.help_line import HelpLine
from lotr_tui.widgets.key_footer import KeyFooter
from lotr_tui.widgets.status_bar import StatusBar

PLACEHOLDER = "Type a text below and press enter to see what the Transformer attends to."

PaneName = Literal["strips", "attended", "along", "lens"]
PANES: tuple[PaneName, ...] = get_args(PaneName)


class AttentionScreen(TextInputScreen[AttentionReading]):
    """Attention and layer predictions of the Transformer inside the session's model while it reads a text."""

    CSS_PATH = "attention.tcss"
    AUTO_FOCUS = "#strips"
    HEADING = "attention: inside the Transformer"
    BUSY_MESSAGE = "reading the text …"
    FAILURE_MESSAGE = "cannot compute the attention"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide"), (150, "-very-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "attention",
            """
            close | escape | close | close | Close the screen
            """,
            show=True,
        ),
        *binding_table(
            "attention",
            """
            previous       | comma    | step_token(-1) | previous word  | The previous word or token
            previous-layer | shift+f2 | step_layer(-1) | previous layer | The previous layer
            """,
        ),
        *binding_table(
            "attention",
            """
            other | f5        | next_pane     | other | The strips, the strongest, the head along the text, the layers
            next  | full_stop | step_token(1) | word  | The next word or token                                 | , .
            layer | f2        | step_layer(1) | layer | The next layer
            pin   | f3        | toggle_pin    | pin   | Keep showing this head along the text
            start | f4        | toggle_start  | start | Leave out the start of the text, which many heads attend to
            edit  | f6        | toggle_edit   | edit  | Edit the text, or return to the strips
            """,
            show=True,
        ),
    ]

    def __init__(self, session_model: SessionModel, text: str = "") -> None:
        """Show what the Transformer inside `session_model` does with `text`."""
        super().__init__(session_model, text)
        self._model = self.inspected_part = find_attention_model(session_model.model)
        self._tokenizer = session_model.model.tokenizer
        self._noun = token_noun(self._tokenizer)
        self.reading: AttentionReading | None = None
        """Attention on the text; None while it is computed."""
        self.layer_index = 0
        """Index of the shown layer."""
        self.pinned_head: HeadId | None = None
        """Head that stays shown along the text, if any."""
        self.is_without_start = False
        """True if the start of the text is left out."""
        self.pane: PaneName = "strips"
        """Part of the screen that a small terminal shows."""
        self._is_first_result = True
        self._max_tokens = 0  # that can be recorded; 0 if unknown

    @property
    def is_idle(self) -> bool:
        """True once the current text is analysed, the predictions of the layers included."""
        return super().is_idle and not self.query_one(LogitLensPane).is_computing

    def compose(self) -> ComposeResult:
        """Yield status, text, strips, legend, the lists, input and footer."""
        yield StatusBar(id="status")
        yield AttentionTextView(PLACEHOLDER, id="text")
        yield Rule(line_style="solid")
        with Vertical(id="strips-pane"):
            yield AttentionStrips(self._noun, id="strips")
            yield StatusBar(id="legend")
        with Container(id="body"):
            with Vertical(id="attended-pane"):
                yield StatusBar(id="attended-heading")
                yield AttendedList(self._noun, id="attended")
            with Vertical(id="along-pane"):
                yield StatusBar(id="along-heading")
                yield StatusBar(id="along-columns")
                yield HeadAlongText(self._noun, id="along")
            yield LogitLensPane(self._model, self._tokenizer, id="lens-pane")
        yield TextInputBar(self.text, id="line")
        yield HelpLine()
        yield KeyFooter(descriptions={"attention.next": self._noun})

    def on_mount(self) -> None:
        """Show the strips where there is no room for all parts."""
        self._show_pane("strips")

    # Analysis

    def lay_out(self, tokens: TokenizedText) -> Page:
        """Return the page of the tokens of a text, which the Transformer reads one by one."""
        return Page.from_tokens(tokens)

    def find_problem(self) -> str:
        """Return a message if the model contains no Transformer."""
        return "no Transformer in this model: it has no attention" if self._model is None else ""

    def show_page(self, page: Page, cursor: int | None) -> None:
        """Show a text with the cursor on a token, by default the last one."""
        self.reading = None
        self.query_one(AttentionTextView).show(page, len(page.tokens) - 1 if cursor is None else cursor)
        if self.pane != "strips":
            self._show_pane("strips")
        self._update_view()

    def compute(self, tokens: TokenizedText) -> AttentionReading:
        """Record the attention on a text, or on its end if the record would be too large."""
        assert self._model is not None, "checked by find_problem"
        self._max_tokens = self._max_tokens or max_recorded_tokens(self._model)
        return read_attention(
            self._model, self._tokenizer, keep_last_tokens(tokens, self._max_tokens, self.tokenize_text)
        )

    def show_result(self, result: AttentionReading) -> None:
        """Show the attention; the first time, the last layer and its strongest position other than the start."""
        text = self.query_one(AttentionTextView)
        assert self.page is not None, "the text is shown"
        if result.page.text != self.page.text:
            self.notify(f"Only the last {plural(len(result.page.tokens), self._noun)} are analysed.", markup=False)
            num_dropped = len(self.page.tokens) - len(result.page.tokens)
            self.text, self.page = result.page.tokens.text, result.page
            text.show(result.page, max(0, text.cursor - num_dropped))
        self.reading = result
        self.layer_index = min(self.layer_index, result.num_layers - 1)
        if self._is_first_result:
            self._is_first_result = False
            self.layer_index = result.num_layers - 1
            mean = result.attended(HeadId(self.layer_index, None), text.cursor, without_start=True)
            self.query_one(AttentionStrips).position = int(np.argmax(mean))
            self.refresh_bindings()
        self._update_view()

    def show_message(self, message: str) -> None:
        """Show a message in place of the strips."""
        self.query_one(AttentionStrips).show_message(message)

    # View

    @property
    def _token(self) -> int:
        return self.query_one(AttentionTextView).cursor

    @property
    def _head_id(self) -> HeadId:
        """Return the pinned head, or the one under the cursor."""
        return self.pinned_head or self.query_one(AttentionStrips).head_id

    @on(TokenTextView.TokenHighlighted)
    @on(AttentionStrips.CursorMoved)
    def _update_view(self) -> None:
        """Update all parts for the current cursors."""
        reading = self.reading
        if reading is None:
            self._clear_view()
            return
        strips = self.query_one(AttentionStrips)
        strips.show(
            reading,
            self.layer_index,
            self._token,
            self._strips_heading(reading),
            pinned=self.pinned_head,
            without_start=self.is_without_start,
        )
        self.query_one(HelpLine).update_text()
        shades, columns = strips.legend()
        self.query_one("#legend", StatusBar).show(Content.styled(shades, MUTED), Content.styled(columns, MUTED))
        head_id = self._head_id
        weights = reading.attended(head_id, self._token, without_start=self.is_without_start)
        positions = reading.token_positions[: self._token]
        self.query_one(AttentionTextView).shade(shade_levels(weights[positions]))
        title, pinned = (self.head_label(head_id), "bold"), (" · pinned" if self.pinned_head else "", "$accent")
        self.show_line("#attended-heading", title, (" looks most at", MUTED), pinned)
        self.query_one(AttendedList).show(weights, reading.names, strips.position)
        self.show_line("#along-heading", title, (" along the text", MUTED), pinned)
        self.show_line("#along-columns", (HEADER, MUTED))
        self.query_one(HeadAlongText).show(reading, head_id, self._token)
        self.query_one(LogitLensPane).show(reading, self._token, self.layer_index)

    def _clear_view(self) -> None:
        self.query_one("#legend", StatusBar).show(Content(""), Content(""))
        for name in ("attended-heading", "along-heading", "along-columns"):
            self.show_line(f"#{name}")
        self.query_one(AttendedList).clear()
        self.query_one(HeadAlongText).clear()
        self.query_one(LogitLensPane).clear()

    def _strips_heading(self, reading: AttentionReading) -> list[str]:
        token = self._token
        parts = [
            f"layer {self.layer_index + 1} of {reading.num_layers}",
            f'predicting "{reading.token_name(token)}"{describe_word_around(reading.page.tokens, token)}',
            f"{self._noun} {token + 1:,} of {len(reading.page.tokens):,}",
        ]
        return [*parts, "without the start"] if self.is_without_start else parts

    def head_label(self, head_id: HeadId) -> str:
        """Return the name of a head for display."""
        if head_id == ROLLOUT:
            return "attention rollout"
        assert head_id.layer is not None, "only attention rollout is of all layers"
        return f"layer {head_id.layer + 1} {row_label(head_id)}"

    # Keys

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the layer keys if there is only one layer."""
        return action != "step_layer" or self.reading is None or self.reading.num_layers > 1

    @on(HeadAlongText.TokenSelected)
    def _move_to_token(self, message: HeadAlongText.TokenSelected) -> None:
        self.query_one(AttentionTextView).move_cursor(message.index)

    @on(AttendedList.PositionSelected)
    def _move_to_position(self, message: AttendedList.PositionSelected) -> None:
        strips = self.query_one(AttentionStrips)
        strips.move_cursor(strips.row, message.position)

    @on(LayerPredictions.LayerSelected)
    def _show_layer(self, message: LayerPredictions.LayerSelected) -> None:
        self.layer_index = message.layer
        self._update_view()

    def action_step_token(self, offset: int) -> None:
        """Move the token cursor by a number of tokens."""
        self.query_one(AttentionTextView).action_step(offset)

    def action_step_layer(self, offset: int) -> None:
        """Show the layer after or before the shown one, and the first one after the last."""
        if self.reading is not None:
            self.layer_index = (self.layer_index + offset) % self.reading.num_layers
            self._update_view()

    def action_toggle_pin(self) -> None:
        """Pin the head under the cursor, or unpin it."""
        if self.reading is not None:
            self.pinned_head = self._head_id if self.pinned_head is None else None
            self._update_view()

    def action_toggle_start(self) -> None:
        """Leave out the start of the text, or include it."""
        self.is_without_start = not self.is_without_start
        self._update_view()

    def action_next_pane(self) -> None:
        """Show and focus the next part of the screen."""
        self._show_pane(PANES[(PANES.index(self.pane) + 1) % len(PANES)])
        self.call_after_refresh(self.query_one(f"#{self.pane}", Widget).focus)

    def _show_pane(self, pane: PaneName) -> None:
        """Show a part of the screen; a terminal that has room for several parts shows others, too."""
        self.pane = pane
        self.set_class(pane == "strips", "-strips")
        if pane != "strips" or not any(self.has_class(f"-{each}") for each in PANES[1:]):
            for each in PANES[1:]:
                self.set_class(each == pane or (pane == "strips" and each == "attended"), f"-{each}")
        if pane in ("attended", "along"):
            self.set_class(pane == "along", "-left-along")
