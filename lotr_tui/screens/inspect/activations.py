"""Activations: an LSTM layer on each token of a text, and one unit along the text."""

from dataclasses import dataclass

import numpy as np
from rich.cells import set_cell_size
from textual.app import ComposeResult
from textual.content import Content
from textual.widgets import Rule

from engine.analysis.activations import (
    ACTIVATION_NAMES,
    ActivationName,
    LayerActivations,
    find_lstm,
    record_activations,
)
from engine.analysis.tokenized_text import TokenizedText
from engine.runtime.process import Cancellation
from lotr_tui.screens.inspect.heat_strip import NEGATIVE_CHARS, POSITIVE_CHARS, ZERO_CHAR, HeatStrips, StripRow
from lotr_tui.screens.inspect.layers import LayerScreen, keep_last_tokens
from lotr_tui.screens.inspect.page import Page, token_names
from lotr_tui.screens.inspect.row_list import Row, RowList
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bars import BLOCK_HEIGHTS, bar
from lotr_tui.widgets.screen_lines import StatusBar

MAX_TOKENS = 1000  # maximum length of a text; the activations of 1,000 tokens in three layers of 1,150 units take 83 MB
PLACEHOLDER = "Type a text below and press enter to see the gates of the LSTM."
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
UnitId = tuple[int, int, ActivationName]  # layer and unit, both counted from 0, and the activation


def value_scale(layer: LayerActivations, gate: ActivationName) -> float:
    """Return the value of a full cell: 1 for a gate, otherwise the largest absolute value in the text."""
    return 1.0 if gate in SIGMOID_GATES else max(float(np.abs(layer.get(gate)).max(initial=0.0)), 1e-6)


def strips_legend(num_units: int, num_cells: int, width: int) -> tuple[str, str]:
    """Return the meaning of the characters and of a cell, the latter shortened if both exceed `width` cells."""
    blocks = f"0 {BLOCK_HEIGHTS[0]}{BLOCK_HEIGHTS[3]}{BLOCK_HEIGHTS[-1]} 1"
    characters = f"{blocks}   − {NEGATIVE_CHARS[::-1]} {ZERO_CHAR} {POSITIVE_CHARS} +"
    if num_units <= num_cells:
        return characters, "one unit per cell" if num_units == num_cells else f"{num_units} units"
    short = f"{num_units / num_cells:.1f} units per cell"
    long = f"{short}: mean of a gate, otherwise largest absolute value"
    return characters, long if len(characters) + len(long) + 3 <= width else short


@dataclass(frozen=True)
class ActivationReading:
    """Activations of each layer on a text."""

    page: Page
    layers: tuple[LayerActivations, ...]
    names: list[str]  # name of each token

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def token_name(self, token: int) -> str:
        return self.names[token]


class ActivationsScreen(LayerScreen[ActivationReading]):
    """Activations of the LSTM inside the session's model while it reads a text."""

    HEADING = "activations: inside the LSTM"
    FAILURE_MESSAGE = "cannot compute the activations"
    VERB = "on reading"
    PANES = ("text", "strips", "along", "line")

    def __init__(self, session_model: SessionModel, text: str = "") -> None:
        super().__init__(session_model, text)
        self._lstm = self.inspected_part = find_lstm(session_model.model)

    def compose_body(self) -> ComposeResult:
        noun = self._noun
        yield TextView(PLACEHOLDER, f"← → {noun}: the strips show the layer after it")
        yield Rule(line_style="solid")
        yield HeatStrips(LABEL_WIDTH, self._strips_help, lambda unit: f"unit {unit}")
        mogrifier = StatusBar(id="mogrifier")
        mogrifier.display = self._lstm is not None and self._lstm.config.mogrifier_rounds > 0
        yield mogrifier
        yield StatusBar(id="legend")
        yield StatusBar(id="along-heading")
        help_line = f"Value of one unit on each {noun}; ↑ ↓ choose a {noun}, space pins the unit"
        yield RowList("Activations of a unit", help_line, id="along")

    # Analysis

    def find_problem(self) -> str:
        return f"no LSTM in this model: it only counts {self._noun}s" if self._lstm is None else ""

    def compute(self, tokens: TokenizedText, cancelled: Cancellation) -> list[ActivationReading]:
        assert self._lstm is not None, "checked by find_problem"
        tokens = keep_last_tokens(tokens, MAX_TOKENS, self.tokenize)
        page = Page.from_tokens(tokens)
        layers = record_activations(self._lstm, *tokens.read_ids())
        return [ActivationReading(page, layers, token_names(page, self._lstm.tokenizer))]

    def find_first_cell(self, reading: ActivationReading, token: int) -> tuple[int, int]:
        """Return the memory cell with the largest absolute value."""
        cells = reading.layers[self.layer_index].cell[token]
        return ACTIVATION_NAMES.index("cell"), int(np.abs(cells).argmax())

    # View

    @property
    def gate(self) -> ActivationName:
        """The activation under the cursor of the strips."""
        return ACTIVATION_NAMES[self.query_one(HeatStrips).row]

    def show_reading(self, reading: ActivationReading, heading: list[str], token: int) -> None:
        strips, layer = self.query_one(HeatStrips), reading.layers[self.layer_index]
        strips.show([self._strip_row(layer, gate, token) for gate in ACTIVATION_NAMES], heading)
        texts = strips_legend(int(strips.columns().sizes.sum()), strips.num_cells, self.size.width - 2)
        self.query_one("#legend", StatusBar).show(*(Content.styled(text, MUTED) for text in texts))
        factors = [factor[token] for factor in layer.mogrifier]
        means = [f"{('layer input', 'hidden')[index % 2]} ×{each.mean():.2f}" for index, each in enumerate(factors)]
        note = Content.styled("mean factor of each round of the mogrifier", MUTED)
        self.query_one("#mogrifier", StatusBar).show(Content(" · ".join(means)), note)
        unit_id: UnitId = self.pinned or self.find_selected()
        of_unit, unit, activation = unit_id
        values = reading.layers[of_unit].get(activation)[:, unit].tolist()
        scale, is_signed = value_scale(reading.layers[of_unit], activation), activation not in SIGMOID_GATES
        self.query_one("#along", RowList).show(
            len(values),
            lambda index, width: _draw_value(reading.names[index], values[index], scale, width, is_signed=is_signed),
            token,
        )
        self.show_along_heading(self.unit_label(unit_id))

    def _strip_row(self, layer: LayerActivations, gate: ActivationName, position: int) -> StripRow:
        is_gate, scale = gate in SIGMOID_GATES, value_scale(layer, gate)
        label = f"{gate:<9} {'0–1' if is_gate else f'±{scale:.2f}'}"
        return StripRow(label, layer.get(gate)[position], "gate" if is_gate else "signed", scale)

    def _strips_help(self) -> str:
        return f"{HELP_LINES[self.gate].format(noun=self._noun)}; ← → unit, ↑ ↓ line"

    def unit_label(self, unit_id: UnitId) -> str:
        """Return the name of a unit for display, without the layer if there is only one."""
        layer, unit, activation = unit_id
        label = f"unit {unit} {activation}"
        return label if self._lstm and self._lstm.config.num_layers == 1 else f"layer {layer + 1} {label}"

    def find_selected(self) -> UnitId:
        return self.layer_index, self.query_one(HeatStrips).item, self.gate


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
