"""Attention: weights of the heads of a Transformer for each token of a text, and predictions of its layers."""

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Rule

from engine.analysis.activations import LayerPrediction, attention_rollouts, find_attention_model, logit_lens
from engine.analysis.tokenized_text import TokenizedText
from engine.data.arrays import Float32Array, Int64Array
from engine.data.tokenizers import Tokenizer
from engine.errors import describe_error, printable
from engine.models.numpy_transformer import AttentionRecord, NumpyTransformer
from engine.runtime.process import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import LINE_END_MARK, fit_cells, format_lone_token, format_percent, plural, truncate
from lotr_tui.screens.inspect.heat_strip import SHADES, THRESHOLDS, HeatStrips, StripRow, shade_levels
from lotr_tui.screens.inspect.layers import LayerScreen, keep_last_tokens
from lotr_tui.screens.inspect.page import Page, token_names
from lotr_tui.screens.inspect.row_list import Row, RowList
from lotr_tui.screens.inspect.text_view import TextView
from lotr_tui.session.session_model import SessionModel
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import SEPARATOR
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.screen_lines import StatusBar

MAX_RECORD_BYTES = 280_000_000
"""Memory for the attention weights of a text: 508 positions of a model of 30 layers with 9 heads."""
START_NAME = "start"  # name of position 0, the start of the text
NUM_PREDICTIONS = 10  # number of likely tokens of each layer
POLL_INTERVAL = 0.02  # seconds between two looks for computed predictions
MAX_BAR_BITS = 8.0  # entropy in bits of a full bar: one cell for each bit
TOKEN_WIDTH, WEIGHT_WIDTH = 14, 8
ALONG_HEADER = f" {'':{TOKEN_WIDTH}}{'start':>{WEIGHT_WIDTH}}  most attended"
LENS_HEADER = f" {'layer':7}{'entropy, bits':15}{'rank':>7}{'prob':>7}    most likely"
PLACEHOLDER = "Type a text below and press enter to see what the Transformer attends to."


class HeadId(NamedTuple):
    """One head of one layer, or an average of several heads."""

    layer: int | None  # index of the layer; None for attention rollout over all layers
    head: int | None  # index of the head; None for the mean of the heads


ROLLOUT = HeadId(None, None)  # attention rollout over all layers


@dataclass(frozen=True)
class AttentionReading:
    """Attention of a model on a text. A token is predicted at the position before its own."""

    page: Page
    record: AttentionRecord
    names: tuple[str, ...]
    """Name of each position `[positions]`: the start of the text, then tokens, with speakers' names."""
    token_positions: Int64Array  # position of each token of the text: `[tokens]`
    mean_weights: Float32Array  # mean of the heads of each layer: `[layers, positions, positions]`
    rollouts: Float32Array  # attention rollout of each position: `[positions, positions]`

    @property
    def num_layers(self) -> int:
        return len(self.record.weights)

    def token_name(self, token: int) -> str:
        return self.names[int(self.token_positions[token])]

    def query_position(self, token: int) -> int:
        """Return the position that predicted a token of the text: the last one that the model had read."""
        return int(self.token_positions[token]) - 1

    def weights(self, head_id: HeadId) -> Float32Array:
        """Return the weights `[positions, positions]` of a head, of the mean of the heads, or of attention rollout."""
        layer, head = head_id
        if layer is None:
            return self.rollouts
        weights: Float32Array = self.mean_weights[layer] if head is None else self.record.weights[layer, head]
        return weights

    def attended(self, head_id: HeadId, token: int, *, without_start: bool = False) -> Float32Array:
        """Return the weights of the positions that predicted a token: `[positions before the token]`.

        `without_start` leaves out the start of the text: its weight is 0, and the others sum to 1.
        """
        query = self.query_position(token)
        weights = self.weights(head_id)[query, : query + 1]
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
    names = [START_NAME, *(format_lone_token(tokenizer.tokens[id]) for id in ids.tolist())]  # stay for heads only
    for position, name in zip(token_positions.tolist(), token_names(page, tokenizer), strict=True):
        names[position] = name
    record = model.record_attention(ids)
    rollouts = attention_rollouts(record.weights)
    return AttentionReading(page, record, tuple(names), token_positions, record.weights.mean(axis=1), rollouts)


class AttentionScreen(LayerScreen[AttentionReading]):
    """Attention and layer predictions of the Transformer inside the session's model while it reads a text."""

    HEADING = "attention: inside the Transformer"
    FAILURE_MESSAGE = "cannot compute the attention"
    VERB = "predicting"
    PANES = ("text", "strips", "along", "lens", "line")
    TAKING_TURNS = ("strips", "along", "lens")
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "attention",
        "start | 0 | toggle_start | start | Leave out the start, which many heads attend to",
        show=True,
    )

    def __init__(self, session_model: SessionModel, text: str = "") -> None:
        super().__init__(session_model, text)
        self._model = self.inspected_part = find_attention_model(session_model.model)
        self._tokenizer = session_model.model.tokenizer
        self.is_without_start = False
        self._max_tokens = 0  # that can be recorded; 0 if unknown
        self._levels = np.empty(0, np.intp)  # shades of the tokens before the one that is predicted
        self._targets: list[tuple[float, int, float]] = []  # of each token: the start's weight, the other, its weight
        self._targets_of: tuple[AttentionReading | None, HeadId | None] = None, None
        self._is_on_input = False  # the cursor of the layers is on the embedding
        self._predictions: dict[int, tuple[LayerPrediction, ...]] = {}  # of the layers, by token
        self._lens_task: BackgroundTask[tuple[int, tuple[LayerPrediction, ...]]] = BackgroundTask(
            self, "logit-lens", self._store_predictions, self._show_lens_failure, interval=POLL_INTERVAL
        )

    def compose_body(self) -> ComposeResult:
        help_line = f"← → {self._noun}; the shades are what the head looks at before it"
        yield TextView(PLACEHOLDER, help_line, self._styles_of)
        yield Rule(line_style="solid")
        with Vertical(id="strips-pane"):
            yield HeatStrips(
                12, self._strips_help, self._position_label, num_fixed_rows=2, first_label="start of the text"
            )
            yield StatusBar(id="legend")
        with Container(id="body"):
            with Vertical(id="along-pane"):
                yield StatusBar(id="along-heading")
                yield StatusBar(id="along-columns")
                help_line = f"Where the head looks before each {self._noun}; ↑ ↓ choose, space pins"
                yield RowList("Head along the text", help_line, id="along")
            with Vertical(id="lens-pane"):
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
        """Record the attention on a text, or on its end if the record would be too large."""
        assert self._model is not None, "checked by find_problem"
        self._max_tokens = self._max_tokens or max_recorded_tokens(self._model)
        return [read_attention(self._model, self._tokenizer, keep_last_tokens(tokens, self._max_tokens, self.tokenize))]

    def find_first_cell(self, reading: AttentionReading, token: int) -> tuple[int, int]:
        """Choose the last layer, and the strongest position other than the start."""
        self.layer_index = reading.num_layers - 1
        return 1, int(np.argmax(reading.attended(HeadId(self.layer_index, None), token, without_start=True)))

    # View

    def find_selected(self) -> HeadId:
        row = self.query_one(HeatStrips).row
        return ROLLOUT if row == 0 else HeadId(self.layer_index, None if row == 1 else row - 2)

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
        strips, layer = self.query_one(HeatStrips), self.layer_index
        heads = [ROLLOUT, *(HeadId(layer, head) for head in (None, *range(reading.record.weights.shape[1])))]
        rows = [
            StripRow(
                _row_label(head),
                reading.attended(head, token, without_start=self.is_without_start),
                is_marked=head == self.pinned,
            )
            for head in heads
        ]
        strips.show(rows, [*heading, *["without the start"] * self.is_without_start], reading.names[:-1])
        self._show_legend(strips)
        head_id = self.pinned or self.find_selected()
        weights = reading.attended(head_id, token, without_start=self.is_without_start)
        levels = shade_levels(weights[reading.token_positions[:token]])
        if not np.array_equal(levels, self._levels):
            self._levels = levels
            self.query_one(TextView).refresh()
        name = f"layer {head_id.layer + 1} {_row_label(head_id)}" if head_id.layer is not None else "attention rollout"
        self.show_along_heading(name)
        self.show_line("#along-columns", (ALONG_HEADER, MUTED))
        self._show_along(reading, head_id, token)
        self._show_lens()

    def _show_legend(self, strips: HeatStrips) -> None:
        pairs = zip(SHADES[1:], THRESHOLDS, strict=True)
        shades = "  ".join(f"{shade} {100 * weight:.0f} %" for shade, weight in pairs)
        heads, num_heads = strips.scrolled_rows(), len(strips.rows) - 2
        notes = f"heads {heads.start - 1} to {heads.stop - 2} of {num_heads}" if len(heads) < num_heads else ""
        if (count := int(strips.columns().sizes.max())) > 1:
            short = (SEPARATOR if notes else "") + f"{count} {self._noun}s per cell"
            long = short.replace(f"{count}", f"up to {count}", 1) + ": the largest weight"
            room = self.size.width - len(shades) - len(notes) - 4
            notes += next((note for note in (long, short) if len(note) <= room), "")
        self.query_one("#legend", StatusBar).show(Content.styled(shades, MUTED), Content.styled(notes, MUTED))

    def _strips_help(self) -> str:
        if self.reading is None:
            return ""
        head_id = self.find_selected()
        kind = "where this head looks" if head_id.head is not None else "mean of the heads"
        if head_id == ROLLOUT:
            kind = "attention rollout"
        return f"{kind}; ← → {self._noun}, ↑ ↓ head, g greatest"

    def _position_label(self, position: int) -> str:
        """Return the name of a position and its distance to the predicted token."""
        assert self.reading is not None, "there are strips"
        if position == 0:
            return "start of the text"
        distance = self.query_one(HeatStrips).num_items - position
        return f'"{self.reading.names[position]}" {plural(distance, self._noun)} back'

    # Lists

    def _show_along(self, reading: AttentionReading, head_id: HeadId, token: int) -> None:
        """Show the weight of the start for each token, and the other position with the largest weight.

        Many heads attend to the start of the text where they have nothing to do, which would hide all other positions.
        """
        if self._targets_of != (reading, head_id):
            self._targets_of = reading, head_id
            weights = reading.weights(head_id)[reading.token_positions - 1]
            starts = weights[:, 0].copy()
            weights[:, 0] = 0.0
            targets = weights.argmax(axis=1)
            largest = weights[np.arange(len(weights)), targets]
            self._targets = list(zip(starts.tolist(), targets.tolist(), largest.tolist(), strict=True))
        self.query_one("#along", RowList).show(len(self._targets), self._draw_along, token)

    def _draw_along(self, index: int, width: int) -> Row:
        assert self.reading is not None, "there are rows"
        start_weight, target, weight = self._targets[index]
        row: Row = [
            (_column(self.reading.token_name(index)), "plain"),
            (f"{format_percent(start_weight):>{WEIGHT_WIDTH}}  ", "muted"),
        ]
        if target == 0:  # nothing but the start was read
            return row
        room = width - TOKEN_WIDTH - 2 * WEIGHT_WIDTH - 2
        name = _column(self.reading.names[target], max(1, min(TOKEN_WIDTH, room)))
        row.append((f"{name}{format_percent(weight):>{WEIGHT_WIDTH}}  ", "plain"))
        return [*row, (bar(weight, max(0, room - TOKEN_WIDTH - 2)), "bar")]

    def _show_lens(self) -> None:
        """Show the predictions of the layers for the token under the cursor; compute them first if necessary."""
        token, model, reading = self.query_one(TextView).cursor, self._model, self.reading
        assert reading is not None, "there is attention"
        assert model is not None, "which has made it"
        heading = f' · prediction of each layer for "{reading.token_name(token)}"'
        self.show_line("#lens-heading", ("logit lens", "bold"), (heading, MUTED))
        self.show_line("#lens-columns", (LENS_HEADER, MUTED))
        if token not in self._predictions:
            # Until the predictions are there, the ones before stay.
            if not self._lens_task.is_running:  # otherwise `_store_predictions` asks for the token then
                target = int(reading.page.tokens.ids[token])
                query = reading.query_position(token)
                self._lens_task.start(
                    lambda _: iter([(token, logit_lens(model, reading.record, query, target, NUM_PREDICTIONS))])
                )
            return
        predictions, target_text = self._predictions[token], self._tokenizer.tokens[int(reading.page.tokens.ids[token])]
        if self.layer_index:
            self._is_on_input = False
        cursor = 0 if self._is_on_input else self.layer_index + 1
        self.query_one("#lens", RowList).show(
            len(predictions),
            lambda index, width: self._draw_layer(predictions[index], index, target_text, width),
            cursor,
        )

    def _draw_layer(self, prediction: LayerPrediction, index: int, target: str, width: int) -> Row:
        """Return entropy, rank and probability of the token, and the most likely tokens of a layer."""
        rank_style = "strong" if prediction.target_rank == 1 else "plain"
        row: Row = [
            (f"{index or 'input':<7}", "plain"),
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
        self.query_one("#lens", RowList).clear()
        self.show_line("#lens-heading", ("logit lens", "bold"), (f" · failed: {describe_error(error)}", MUTED))

    @on(RowList.Selected, "#lens")
    def _move_to_layer(self, message: RowList.Selected) -> None:
        self.layer_index, self._is_on_input = max(0, message.index - 1), message.index == 0
        self.update_view()

    # Keys

    def action_step_layer(self, offset: int) -> None:
        self._is_on_input = False
        super().action_step_layer(offset)

    def action_toggle_start(self) -> None:
        self.is_without_start = not self.is_without_start
        self.update_view()


def _row_label(head_id: HeadId) -> str:
    if head_id == ROLLOUT:
        return "all layers"
    return "mean" if head_id.head is None else f"head {head_id.head + 1}"


def _column(name: str, width: int = TOKEN_WIDTH) -> str:
    """Return a name in a column with a blank cell after it."""
    return fit_cells(truncate(name, width - 1), width)
