"""Inspectors of a network: strips of one layer at a time, and a unit or head that stays pinned along the text."""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from textual import on
from textual.binding import BindingType
from textual.content import Content

from engine.analysis.tokenized_text import TokenizedText
from lotr_tui.formatting import plural, token_noun
from lotr_tui.screens.inspect.heat_strip import HeatStrips
from lotr_tui.screens.inspect.page import Page, visible_part
from lotr_tui.screens.inspect.row_list import RowList
from lotr_tui.screens.inspect.text_screen import TextScreen
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import HelpLine, StatusBar


class Reading(Protocol):
    """Activations or attention of a network on a text."""

    @property
    def page(self) -> Page:
        """The text, or its end if all would be too long; its items are the tokens."""

    @property
    def num_layers(self) -> int: ...

    def token_name(self, token: int) -> str: ...


ReadingT = TypeVar("ReadingT", bound=Reading)


def keep_last_tokens(tokens: TokenizedText, max_tokens: int, tokenize: Callable[[str], TokenizedText]) -> TokenizedText:
    """Return the end of a text that has at most `max_tokens` tokens, names of speakers included.

    The end begins with a line of a script, or else with a word, if such an end has a token.
    """
    while len(tokens) + sum(map(len, tokens.heads.values())) > max_tokens and len(tokens) > 1:
        reads = np.ones(len(tokens), np.int64)  # for each token: itself and the name before it
        for index, head in tokens.heads.items():
            reads[index] += len(head)
        num_read_from = np.cumsum(reads[::-1])[::-1]
        first = min(max(1, int(np.count_nonzero(num_read_from > max_tokens))), len(tokens) - 1)
        word = int(np.searchsorted(tokens.word_starts, first))
        start = int(tokens.word_spans[0][word] if word < tokens.num_words else tokens.start_offsets[first])
        if lines := [start for start in tokens.speakers if start >= first]:
            start = tokens.text.rfind("\n", 0, int(tokens.start_offsets[min(lines)])) + 1
        tokens = tokenize(tokens.text[start:])
    return tokens


class LayerScreen(TextScreen[ReadingT]):
    AUTO_FOCUS = "#strips"
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-high")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "layers",
            """
            layer | right_square_bracket | step_layer(1) | layer | The next layer | [ ]
            pin   | space                | toggle_pin    | pin   | Keep showing this line of the strips along the text
            """,
            show=True,
        ),
        *binding_table("layers", "previous | left_square_bracket | step_layer(-1) | previous layer | The layer before"),
    ]
    VERB: ClassVar[str]  # relation of the strips to the token under the cursor

    def __init__(self, session_model: SessionModel, text: str = "") -> None:
        super().__init__(session_model, text)
        self._noun = token_noun(session_model.model.tokenizer)
        self.layer_index = 0
        self.reading: ReadingT | None = None  # activations or attention on the text; None while they are computed
        self.pinned: Any = None  # unit or head that stays shown along the text, if any
        self._is_first_result = True

    def find_selected(self) -> Any:
        """Return the unit or head under the cursor of the strips."""
        raise NotImplementedError

    def find_first_cell(self, reading: ReadingT, token: int) -> tuple[int, int]:
        """Choose a layer, and return the row and the item of the strips where the cursor starts."""
        raise NotImplementedError

    def show_reading(self, reading: ReadingT, heading: list[str], token: int) -> None:
        """Show strips and lists for the token under the cursor."""
        raise NotImplementedError

    def show_page(self, page: Page) -> None:
        self.reading = None
        self.query_one(TextView).show(page, len(page.tokens) - 1)
        for line in self.query(StatusBar):
            if line.id != "status":
                line.show(Content(""), Content(""))
        for rows in self.query(RowList):
            rows.clear()

    def show_message(self, message: str) -> None:
        self.query_one(HeatStrips).show_message(message)

    def show_result(self, result: ReadingT) -> None:
        text, strips = self.query_one(TextView), self.query_one(HeatStrips)
        assert self.page is not None, "the text is shown"
        if result.page.text != self.page.text:
            self.notify(f"Only the last {plural(len(result.page.tokens), self._noun)} are analysed.", markup=False)
            num_dropped = len(self.page.tokens) - len(result.page.tokens)
            self.text, self.page = result.page.tokens.text, result.page
            text.show(result.page, max(0, text.cursor - num_dropped))
        self.reading, self.layer_index = result, min(self.layer_index, result.num_layers - 1)
        if self._is_first_result:
            self._is_first_result = False
            strips.row, strips.item = self.find_first_cell(result, text.cursor)
            self.refresh_bindings()
        self.update_view()

    @on(TextView.CursorMoved)
    @on(HeatStrips.CursorMoved)
    def update_view(self) -> None:
        if (reading := self.reading) is None:
            return
        token, tokens = self.query_one(TextView).cursor, reading.page.tokens
        word = tokens.word_index(token)
        is_part = tokens.word_ends[word] - tokens.word_starts[word] > 1
        around = f' of "{visible_part(tokens.word(word))}"' if is_part else ""
        heading = [
            f"layer {self.layer_index + 1} of {reading.num_layers}",
            f'{self.VERB} "{reading.token_name(token)}"{around}',
            f"{self._noun} {token + 1:,} of {len(tokens):,}",
        ]
        self.show_reading(reading, heading, token)
        self.query_one(HelpLine).update_text()

    def show_along_heading(self, name: str) -> None:
        pinned = (" · pinned" if self.pinned else "", "$accent")
        self.show_line("#along-heading", (name, "bold"), (" along the text", MUTED), pinned)

    @on(RowList.Selected, "#along")
    def _move_to_token(self, message: RowList.Selected) -> None:
        self.query_one(TextView).move_cursor(message.index)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Hide the layer keys if there is only one layer."""
        return action != "step_layer" or self.reading is None or self.reading.num_layers != 1

    def action_step_layer(self, offset: int) -> None:
        if self.reading is not None:
            self.layer_index = (self.layer_index + offset) % self.reading.num_layers
            self.update_view()

    def action_toggle_pin(self) -> None:
        if self.reading is not None:
            self.pinned = self.find_selected() if self.pinned is None else None
            self.update_view()
