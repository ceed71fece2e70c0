"""Attention: weights of the heads of a Transformer for each token of a text, and predictions of its layers."""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from rich.cells import cell_len
from textual import containers, on, widgets
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.content import Content

from engine.analysis.activations import LayerPrediction, attention_rollouts, find_attention_model, logit_lens
from engine.analysis.tokenized_text import TokenizedText
from engine.data.arrays import Float32Array, Int64Array
from engine.data.tokenizers import Tokenizer
from engine.errors import describe_error, printable
from engine.models.numpy_transformer import AttentionRecord, NumpyTransformer
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import LINE_END_MARK, bar, fit_cells, format_lone_token, format_percent, plural, truncate
from lotr_tui.screens.inspect.heat_strip import SHADES, THRESHOLDS, HeatStrips, StripRow, shade_levels
from lotr_tui.screens.inspect.layers import LayerScreen, Selection, keep_last_tokens
from lotr_tui.screens.inspect.text_screen import Row, RowList
from lotr_tui.screens.inspect.text_view import Page, TextView, token_names
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.drawing import SEPARATOR
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import StatusBar

MAX_RECORD_BYTES = 280_000_000
"""Memory for the attention weights of a text: 508 positions of a model of 30 layers with 9 heads."""
NUM_PREDICTIONS = 10  # number of likely tokens of each layer
POLL_INTERVAL = 0.02  # seconds between two looks for computed predictions
MAX_BAR_BITS = 8.0  # entropy in bits of a full bar: one cell for each bit
TOKEN_WIDTH, WEIGHT_WIDTH = 14, 8
ALONG_HEADER = f" {'':{TOKEN_WIDTH}}{'start':>{WEIGHT_WIDTH}}  most attended"
LENS_HEADER = f" {'layer':7}{'entropy, bits':15}{'rank':>7}{'prob':>7}    most likely"
ROLLOUT, MEAN = 0, 1  # rows of the strips of each layer: rollout over all layers, mean of the heads, then the heads


@dataclass
class AttentionReading:
    """Attention of a model on a text. A token is predicted at the position before its own."""

    page: Page
    names: list[str]
    layers: Float32Array  # weights `[layers, heads, positions, positions]`
    record: AttentionRecord
    means: Float32Array  # of the heads of each layer: `[layers, positions, positions]`
    rollouts: Float32Array  # attention rollout of each position: `[positions, positions]`
    position_names: list[str]  # the start of the text, then tokens, with the ones of speakers' names: `[positions]`
    token_positions: Int64Array  # position of each token of the text: `[tokens]`

    def weights(self, layer: int, row: int, query: int | Int64Array) -> Float32Array:
        """Return the weights of a row for one position `[positions]`, or for several ones `[queries, positions]`."""
        rows = {ROLLOUT: self.rollouts, MEAN: self.means[layer]}
        weights: Float32Array = (rows[row] if row in rows else self.layers[layer, row - 2])[query]
        return weights

    def attended(self, layer: int, row: int, token: int, *, without_start: bool = False) -> Float32Array:
        """Return the weights of the positions that predicted a token: `[positions before the token]`.

        `without_start` leaves out the start of the text: its weight is 0, and the others sum to 1.
        """
        query = int(self.token_positions[token]) - 1
        weights = self.weights(layer, row, query)[: query + 1]
        if not without_start:
            return weights
        others: Float32Array = weights / max(float(weights[1:].sum()), 1e-9)
        others[0] = 0.0
        return others


def max_recorded_tokens(model: NumpyTransformer) -> int:
    """Return how many tokens can be recorded after the start of a text, given the memory and the model's context."""
    num_layers, num_heads, *_ = model.record_attention(np.empty(0, np.int32)).weights.shape
    max_positions = math.isqrt(MAX_RECORD_BYTES // (np.dtype(np.float32).itemsize * num_layers * num_heads))
    return max(1, min(max_positions, model.context_size) - 1)


def read_attention(model: NumpyTransformer, tokenizer: Tokenizer, tokens: TokenizedText) -> AttentionReading:
    """Record the attention of a model on the start of a text and its tokens.

    Raises:
        InvalidInputError: If the text does not fit into the model's context.
    """
    read_ids, positions = tokens.read_ids()
    ids, token_positions = np.array(read_ids, np.int32), np.array(positions, np.int64) + 1  # position 0 is the start
    page = Page.from_tokens(tokens)
    names = token_names(page, tokenizer)
    position_names = ["start", *(format_lone_token(tokenizer.tokens[id]) for id in read_ids)]
    for position, name in zip(token_positions.tolist(), names, strict=True):
        position_names[position] = name
    record = model.record_attention(ids)
    weights = record.weights
    means, rollouts = weights.mean(axis=1), attention_rollouts(weights)
    return AttentionReading(page, names, weights, record, means, rollouts, position_names, token_positions)


class AttentionScreen(LayerScreen[AttentionReading]):
    """Attention and layer predictions of the Transformer inside the session's model while it reads a text."""

    HEADING = "attention: inside the Transformer"
    FAILURE_MESSAGE = "cannot compute the attention"
    VERB = "predicting"
    panes = ("strips", "along", "lens", "line", "text")
    TAKING_TURNS = ("strips", "along", "lens")
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "attention", "start | 0 | toggle_start | start | Leave out the start, which many heads attend to", show=True
    )

    def __init__(self, session_model: SessionModel, text: str = "", names: tuple[str, ...] = ()) -> None:
        super().__init__(session_model, text, names)
        self._model = self.inspected_part = find_attention_model(session_model.model)
        self._tokenizer = session_model.model.tokenizer
        self.is_without_start = False
        self._max_tokens = 0  # that can be recorded; 0 if unknown
        self._levels = np.empty(0, np.intp)  # shades of the tokens before the one that is predicted
        self._predictions: dict[int, tuple[LayerPrediction, ...]] = {}  # of the layers, by token
        self._lens_task: BackgroundTask[tuple[int, tuple[LayerPrediction, ...]]] = BackgroundTask(
            self, "logit-lens", self._store_predictions, self._show_lens_failure, interval=POLL_INTERVAL
        )

    def compose_body(self) -> ComposeResult:
        noun, placeholder = self._noun, "Type a text below and press enter to see what the Transformer attends to."
        yield TextView(placeholder, f"← → {noun}; the shades are what the head looks at before it", self._styles_of)
        yield widgets.Rule(line_style="solid")
        with containers.Vertical(id="strips-pane"):
            yield HeatStrips(12, self._strips_help, self._position_label, first_label="start of the text")
            yield StatusBar(id="legend")
        with containers.Container(id="body"):
            with containers.Vertical(id="along-pane"):
                yield StatusBar(id="along-heading")
                yield StatusBar(id="along-columns")
                help_line = f"Where the head looks before each {noun}; ↑ ↓ choose, space pins"
                yield RowList("Head along the text", help_line, id="along")
            with containers.Vertical(id="lens-pane"):
                yield StatusBar(id="lens-heading")
                yield StatusBar(id="lens-columns")
                yield RowList("Logit lens", "Logit lens: what each layer would predict; ↑ ↓ choose one", id="lens")

    @property
    def is_idle(self) -> bool:
        return super().is_idle and not self._lens_task.is_running

    def on_unmount(self) -> None:
        self._lens_task.cancel()

    # Analysis

    def find_problem(self) -> str:
        return "no Transformer in this model: it has no attention" if self._model is None else ""

    def show_page(self, page: Page) -> None:
        self._predictions, self._levels = {}, np.empty(0, np.intp)
        self._lens_task.cancel()
        super().show_page(page)

    def compute(self, tokens: TokenizedText, cancelled: Cancellation) -> list[AttentionReading]:
        assert self._model is not None, "checked by find_problem"
        self._max_tokens = self._max_tokens or max_recorded_tokens(self._model)
        return [read_attention(self._model, self._tokenizer, keep_last_tokens(tokens, self._max_tokens, self.tokenize))]

    def find_first_cell(self, reading: AttentionReading, token: int) -> Selection:
        last = len(reading.layers) - 1
        return Selection(last, MEAN, int(np.argmax(reading.attended(last, MEAN, token, without_start=True))))

    # View

    def _styles_of(self, index: int) -> tuple[str, ...]:
        text = self.query_one(TextView)
        base, cursor = text.base_styles(index), ("cursor",) if text.is_under_cursor(index) else ()
        if level := self.shade_level(index):
            return (*base, f"level-{level}", *cursor)
        is_unread = 0 < len(self._levels) <= index != text.cursor
        return (*base, "gap", *cursor) if is_unread else (*base, *cursor)

    def shade_level(self, token: int) -> int:
        """Return the index in `SHADES` of a token of the text, 0 for one that the model had not read."""
        return int(self._levels[token]) if token < len(self._levels) else 0

    def show_reading(self, reading: AttentionReading, heading: list[str], token: int) -> None:
        strips, pinned, layer = self.query_one(HeatStrips), self.pinned, self.layer_index
        rows = []
        for row in range(2 + reading.layers.shape[1]):
            weights = reading.attended(layer, row, token, without_start=self.is_without_start)
            is_pinned = pinned is not None and row == pinned.row and (row == ROLLOUT or layer == pinned.layer)
            rows.append(StripRow(_row_label(row), weights, is_marked=is_pinned))
        strips.show(rows, [*heading, *["without the start"] * self.is_without_start], reading.position_names[:-1])
        self._show_legend(strips)
        layer, row, _ = pinned or self.selection
        weights = reading.attended(layer, row, token, without_start=self.is_without_start)
        levels = shade_levels(weights[reading.token_positions[:token]])
        if not np.array_equal(levels, self._levels):
            self._levels = levels
            self.query_one(TextView).refresh()
        self._show_targets(reading, layer, row, token)
        self._show_lens()

    def _show_legend(self, strips: HeatStrips) -> None:
        pairs = zip(SHADES[1:], THRESHOLDS, strict=True)
        shades = "  ".join(f"{shade} {100 * weight:.0f} %" for shade, weight in pairs)
        rows, num_rows = strips.visible_rows(), len(strips.rows)
        notes = f"lines {rows.start + 1} to {rows.stop} of {num_rows}" if len(rows) < num_rows else ""
        if (count := int(strips.columns().sizes.max())) > 1:
            short = (SEPARATOR if notes else "") + f"{count} {self._noun}s per cell"
            long = short.replace(f"{count}", f"up to {count}", 1) + ": the largest weight"
            room = self.size.width - len(shades) - len(notes) - 4
            notes += next((note for note in (long, short) if len(note) <= room), "")
        self.query_one("#legend", StatusBar).show(Content.styled(shades, MUTED), Content.styled(notes, MUTED))

    def _strips_help(self) -> str:
        row = self.query_one(HeatStrips).row
        kind = {ROLLOUT: "attention rollout", MEAN: "mean of the heads"}.get(row, "where this head looks")
        return f"{kind}; ← → {self._noun}, ↑ ↓ head, g greatest"

    def _position_label(self, position: int) -> str:
        assert self.reading is not None, "there are strips"
        if position == 0:
            return "start of the text"
        distance = self.query_one(HeatStrips).num_items - position
        return f'"{self.reading.position_names[position]}" {plural(distance, self._noun)} back'

    # Lists

    def _show_targets(self, reading: AttentionReading, layer: int, row: int, token: int) -> None:
        """Show the weight of the start for each token, and the other position with the largest weight.

        Many heads attend to the start of the text where they have nothing to do, which would hide all other positions.
        """
        weights = reading.weights(layer, row, reading.token_positions - 1)
        targets = 1 + weights[:, 1:].argmax(axis=1)

        def draw(index: int, width: int) -> Row:
            start, target = float(weights[index, 0]), int(targets[index])
            name, weight = reading.position_names[target], float(weights[index, target])
            cells: Row = [
                (_column(reading.names[index]), "plain"),
                (f"{format_percent(start):>{WEIGHT_WIDTH}}  ", "muted"),
            ]
            if not weight:  # nothing but the start was read
                return cells
            room = width - TOKEN_WIDTH - 2 * WEIGHT_WIDTH - 2
            cells.append(
                (f"{_column(name, max(1, min(TOKEN_WIDTH, room)))}{format_percent(weight):>{WEIGHT_WIDTH}}  ", "plain")
            )
            return [*cells, (bar(weight, max(0, room - TOKEN_WIDTH - 2)), "bar")]

        name = "attention rollout" if row == ROLLOUT else f"layer {layer + 1} {_row_label(row)}"
        self.show_line("#along-columns", (ALONG_HEADER, MUTED))
        self.show_along(name, len(weights), draw, token)

    def _show_lens(self) -> None:
        token, model, reading = self.query_one(TextView).cursor, self._model, self.reading
        assert reading is not None, "there is attention"
        assert model is not None, "which has made it"
        heading = f' · prediction of each layer for "{reading.names[token]}"'
        self.show_line("#lens-heading", ("logit lens", "bold"), (heading, MUTED))
        self.show_line("#lens-columns", (LENS_HEADER, MUTED))
        target, query = int(reading.page.tokens.ids[token]), int(reading.token_positions[token]) - 1
        if token in self._predictions:
            predictions, text = self._predictions[token], self._tokenizer.tokens[target]
            lens, cursor = self.query_one("#lens", RowList), self.layer_index + 1
            lens.show(len(predictions), lambda index, width: self._draw_layer(predictions[index], text, width), cursor)
        elif not self._lens_task.is_running:  # otherwise `_store_predictions` asks for the token then
            self._lens_task.start(
                lambda _: iter([(token, logit_lens(model, reading.record, query, target, NUM_PREDICTIONS))])
            )

    def _draw_layer(self, prediction: LayerPrediction, target: str, width: int) -> Row:
        rank_style = "strong" if prediction.target_rank == 1 else "plain"
        row: Row = [
            (f"{prediction.layer or 'input':<7}", "plain"),
            (f"{bar(prediction.entropy_bits / MAX_BAR_BITS, 8):8}", "gate"),
            (f"{prediction.entropy_bits:6.1f}", "plain"),
            (f"{prediction.target_rank:8,}", rank_style),
            (f"{format_percent(prediction.target_prob):>9}", "plain"),
        ]
        room = width - 38
        for text, prob in prediction.top_tokens:
            name = format_lone_token(text, ends_text=self._tokenizer.reads_line_ends).replace("\n", LINE_END_MARK)
            name, number = f"  {printable(name) or repr(text)[1:-1]}", f" {format_percent(prob)}"
            room -= cell_len(name + number)
            if room < 0:
                break
            row += [(name, "strong" if text == target else "plain"), (number, "muted")]
        return row

    def _store_predictions(self, results: list[tuple[int, tuple[LayerPrediction, ...]]]) -> None:
        self._predictions.update(results)
        self._lens_task.cancel()  # it has delivered its only item
        if self.reading is not None:
            self._show_lens()

    def _show_lens_failure(self, error: BaseException) -> None:
        self.query_one("#lens", RowList).show(0, lambda *_: [], None)
        self.show_line("#lens-heading", ("logit lens", "bold"), (f" · failed: {describe_error(error)}", MUTED))

    @on(RowList.Selected, "#lens")
    def _move_to_layer(self, message: RowList.Selected) -> None:
        self.layer_index = max(0, message.index - 1)
        self.update_view()

    # Keys

    def action_toggle_start(self) -> None:
        self.is_without_start = not self.is_without_start
        self.update_view()


def _row_label(row: int) -> str:
    return {ROLLOUT: "all layers", MEAN: "mean"}.get(row, f"head {row - 1}")


def _column(name: str, width: int = TOKEN_WIDTH) -> str:
    return fit_cells(truncate(name, width - 1), width)  # with a blank cell after it
