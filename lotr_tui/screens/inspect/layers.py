"""Inspectors of a network: strips of one layer at a time, and a line of them along the text; the gates of an LSTM."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, TypeVar

import numpy as np
from rich.cells import set_cell_size
from textual import on, widgets
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content

from engine.analysis.activations import (
    ACTIVATION_NAMES,
    ActivationName,
    LayerActivations,
    find_lstm,
    record_activations,
)
from engine.analysis.tokenized_text import TokenizedText
from engine.models.numpy_lstm import NumpyLSTM
from engine.runtime.process import Cancellation
from lotr_tui.formatting import BLOCK_HEIGHTS, bar, plural, token_noun
from lotr_tui.screens.inspect import heat_strip
from lotr_tui.screens.inspect.heat_strip import HeatStrips, StripRow
from lotr_tui.screens.inspect.text_screen import Row, RowList, TextScreen
from lotr_tui.screens.inspect.text_view import Page, TextView, token_names, visible_part
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import HelpLine, StatusBar

MAX_TOKENS = 1000  # maximum length of a text; the activations of 1,000 tokens in three layers of 1,150 units take 83 MB
SIGMOID_GATES: frozenset[ActivationName] = frozenset({"input", "forget", "output"})
"""Activations between 0 and 1; the others have a sign."""
HELP_LINES: dict[ActivationName, str] = {
    "input": "input gate: share of the new content that is stored, 0 to 1",
    "forget": "forget gate: share of the memory that is kept, 1 keeps all",
    "output": "output gate: share of the memory that is shown, 0 to 1",
    "candidate": "candidate: the new content for the memory, -1 to 1",
    "cell": "cell: the memory of each unit after this {noun}",
    "hidden": "hidden: what the layer passes on after this {noun}, -1 to 1",
}
LABEL_WIDTH, TOKEN_WIDTH, NUMBER_WIDTH = 18, 14, 8


class Reading(Protocol):
    """Activations or attention of a network on a text."""

    page: Page  # the text, or its end if all would be too long; its items are the tokens
    names: list[str]  # of the tokens
    layers: Any  # one element for each layer


class Selection(NamedTuple):
    """A cell of the strips of a layer, all counted from 0."""

    layer: int
    row: int
    item: int


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
    """A screen with the strips of a layer for the token under the cursor, and one line of them along the text."""

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

    def __init__(self, session_model: SessionModel, text: str, names: tuple[str, ...]) -> None:
        super().__init__(session_model, text, names)
        self._noun = token_noun(session_model.model.tokenizer)
        self.layer_index = 0
        self.reading: ReadingT | None = None  # activations or attention on the text; None while they are computed
        self.pinned: Selection | None = None  # what stays shown along the text, if anything
        self._is_first_result = True

    def find_first_cell(self, reading: ReadingT, token: int) -> Selection:
        """Return the layer and the cell of its strips where the cursor starts."""
        raise NotImplementedError

    def show_reading(self, reading: ReadingT, heading: list[str], token: int) -> None:
        """Show strips and lists for the token under the cursor."""
        raise NotImplementedError

    @property
    def selection(self) -> Selection:
        strips = self.query_one(HeatStrips)
        return Selection(self.layer_index, strips.row, strips.item)

    def show_page(self, page: Page) -> None:
        self.reading = None
        self.query_one(TextView).show(page, len(page.tokens) - 1)
        for line in self.query(StatusBar):
            if line.id != "status":
                line.show(Content(""), Content(""))
        for rows in self.query(RowList):
            rows.show(0, lambda *_: [], None)

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
        self.reading, self.layer_index = result, min(self.layer_index, len(result.layers) - 1)
        if self._is_first_result:
            self._is_first_result = False
            self.layer_index, strips.row, strips.item = self.find_first_cell(result, text.cursor)
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
            f"layer {self.layer_index + 1} of {len(reading.layers)}",
            f'{self.VERB} "{reading.names[token]}"{around}',
            f"{self._noun} {token + 1:,} of {len(tokens):,}",
        ]
        self.show_reading(reading, heading, token)
        self.query_one(HelpLine).update_text()

    def show_along(self, name: str, num_rows: int, draw: Callable[[int, int], Row], token: int) -> None:
        pinned = (" · pinned" if self.pinned else "", "$accent")
        self.show_line("#along-heading", (name, "bold"), (" along the text", MUTED), pinned)
        self.query_one("#along", RowList).show(num_rows, draw, token)

    @on(RowList.Selected, "#along")
    def _move_to_token(self, message: RowList.Selected) -> None:
        self.query_one(TextView).move_cursor(message.index)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        return action != "step_layer" or self.reading is None or len(self.reading.layers) != 1

    def action_step_layer(self, offset: int) -> None:
        if self.reading is not None:
            self.layer_index = (self.layer_index + offset) % len(self.reading.layers)
            self.update_view()

    def action_toggle_pin(self) -> None:
        if self.reading is not None:
            self.pinned = self.selection if self.pinned is None else None
            self.update_view()


@dataclass
class ActivationReading:
    page: Page
    names: list[str]
    layers: tuple[LayerActivations, ...]


def read_activations(lstm: NumpyLSTM, tokens: TokenizedText) -> ActivationReading:
    page = Page.from_tokens(tokens)
    return ActivationReading(page, token_names(page, lstm.tokenizer), record_activations(lstm, *tokens.read_ids()))


class ActivationsScreen(LayerScreen[ActivationReading]):
    """Activations of the LSTM inside the session's model while it reads a text."""

    HEADING = "activations: inside the LSTM"
    FAILURE_MESSAGE = "cannot compute the activations"
    VERB = "on reading"
    panes = ("strips", "along", "line", "text")

    def __init__(self, session_model: SessionModel, text: str = "", names: tuple[str, ...] = ()) -> None:
        super().__init__(session_model, text, names)
        self._lstm = self.inspected_part = find_lstm(session_model.model)

    def compose_body(self) -> ComposeResult:
        noun, placeholder = self._noun, "Type a text below and press enter to see the gates of the LSTM."
        yield TextView(placeholder, f"← → {noun}: the strips show the layer after it")
        yield widgets.Rule(line_style="solid")
        yield HeatStrips(LABEL_WIDTH, self._strips_help, lambda unit: f"unit {unit}")
        mogrifier = StatusBar(id="mogrifier")
        mogrifier.display = self._lstm is not None and self._lstm.config.mogrifier_rounds > 0
        yield mogrifier
        yield StatusBar(id="legend")
        yield StatusBar(id="along-heading")
        help_line = f"Value of one unit on each {noun}; ↑ ↓ choose a {noun}, space pins the unit"
        yield RowList("Activations of a unit", help_line, id="along")

    def find_problem(self) -> str:
        return f"no LSTM in this model: it only counts {self._noun}s" if self._lstm is None else ""

    def compute(self, tokens: TokenizedText, cancelled: Cancellation) -> list[ActivationReading]:
        assert self._lstm is not None, "checked by find_problem"
        return [read_activations(self._lstm, keep_last_tokens(tokens, MAX_TOKENS, self.tokenize))]

    def find_first_cell(self, reading: ActivationReading, token: int) -> Selection:
        return Selection(0, ACTIVATION_NAMES.index("cell"), int(np.abs(reading.layers[0].cell[token]).argmax()))

    def show_reading(self, reading: ActivationReading, heading: list[str], token: int) -> None:
        strips, layer = self.query_one(HeatStrips), reading.layers[self.layer_index]
        rows = []
        for gate in ACTIVATION_NAMES:
            is_gate, scale = gate in SIGMOID_GATES, value_scale(layer, gate)
            label = f"{gate:<9} {'0–1' if is_gate else f'±{scale:.2f}'}"
            rows.append(StripRow(label, layer.get(gate)[token], "gate" if is_gate else "signed", scale))
        strips.show(rows, heading)
        self._show_legend(strips)
        factors = [factor[token] for factor in layer.mogrifier]
        means = [f"{('layer input', 'hidden')[index % 2]} ×{each.mean():.2f}" for index, each in enumerate(factors)]
        note = Content.styled("mean factor of each round of the mogrifier", MUTED)
        self.query_one("#mogrifier", StatusBar).show(Content(" · ".join(means)), note)
        number, row, unit = self.pinned or self.selection
        layer, gate = reading.layers[number], ACTIVATION_NAMES[row]
        values, scale = layer.get(gate)[:, unit].tolist(), value_scale(layer, gate)
        is_signed = gate not in SIGMOID_GATES
        self.show_along(
            f"layer {number + 1} " * (len(reading.layers) > 1) + f"unit {unit} {gate}",
            len(values),
            lambda index, width: _draw_value(reading.names[index], values[index], scale, width, is_signed=is_signed),
            token,
        )

    def _show_legend(self, strips: HeatStrips) -> None:
        blocks = f"0 {BLOCK_HEIGHTS[0]}{BLOCK_HEIGHTS[3]}{BLOCK_HEIGHTS[-1]} 1"
        characters = (
            f"{blocks}   − {heat_strip.NEGATIVE_CHARS[::-1]} {heat_strip.ZERO_CHAR} {heat_strip.POSITIVE_CHARS} +"
        )
        num_units, num_cells = int(strips.columns().sizes.sum()), strips.num_cells
        note = "one unit per cell" if num_units == num_cells else f"{num_units} units"
        if num_units > num_cells:
            note = f"{num_units / num_cells:.1f} units per cell"
            long = f"{note}: mean of a gate, otherwise largest absolute value"
            note = long if len(characters) + len(long) + 5 <= self.size.width else note
        self.query_one("#legend", StatusBar).show(Content.styled(characters, MUTED), Content.styled(note, MUTED))

    def _strips_help(self) -> str:
        gate = ACTIVATION_NAMES[self.selection.row]
        return f"{HELP_LINES[gate].format(noun=self._noun)}; ← → unit, ↑ ↓ line"


def value_scale(layer: LayerActivations, gate: ActivationName) -> float:
    """Return the value of a full cell: 1 for a gate, otherwise the largest absolute value in the text."""
    return 1.0 if gate in SIGMOID_GATES else max(float(np.abs(layer.get(gate)).max(initial=0.0)), 1e-6)


def _draw_value(name: str, value: float, scale: float, width: int, *, is_signed: bool) -> Row:
    """Return a token, the value of a unit and its bar, which starts in the middle if the value has a sign."""
    number = f"{value:{'+' * is_signed}{NUMBER_WIDTH}.3f}"
    text = (f"{set_cell_size(name, TOKEN_WIDTH)}{number}  ", "plain")
    bar_width, fraction = max(2, width - TOKEN_WIDTH - NUMBER_WIDTH - 2), value / scale
    if not is_signed:
        return [text, (bar(fraction, bar_width), "gate")]
    half = (bar_width - 1) // 2
    left = "▒" * round(max(0.0, min(-fraction, 1.0)) * half)
    return [text, (left.rjust(half), "negative"), ("│", "muted"), (bar(fraction, half), "positive")]
