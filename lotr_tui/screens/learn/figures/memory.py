"""Figure of the chapter on memory: one unit of an LSTM along a typed line, and the next words with a state reset."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

import numpy as np
from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Input, Static

from engine.analysis.activations import (
    LSTMStep,
    NextTokenComparison,
    UnitStep,
    compare_next_tokens,
    find_lstm,
    liveliest_unit,
    read_steps,
)
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.arrays import Float32Array, Int32Array
from engine.data.tokenizers import EOS, EOS_ID, UNK, Tokenizer
from engine.models.base import LogProbs
from engine.models.numpy_lstm import NumpyLSTM
from engine.runtime.process import Cancellation
from lotr_tui.formatting import SELECTED_MARK, fit_cells, format_lone_token, token_noun, truncate
from lotr_tui.learn.lines import find_example
from lotr_tui.learn.material import Material
from lotr_tui.screens.inspect.page import next_token_name, sanitize_text
from lotr_tui.screens.learn.figure import ChapterFigure, Drawing, LineBar
from lotr_tui.session.session_model import find_cast
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bars import bar, signed_bar
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.slider import Slider

EXAMPLE = "They are taking the hobbits to"
MAX_CHARACTERS = 200  # of the line, so that a large model reads it within the time between two keys
NUM_NEXT_TOKENS, NUM_NEIGHBOURS = 24, 5
MIN_WIDTH = 70  # columns for both controls on one line
ROOMY_HEIGHT, TALL_HEIGHT = 14, 23  # rows for blank lines, and for the next words below the steps
ROWS = ("forget", "input", "candidate", "cell", "output", "hidden")
GATES = frozenset({"forget", "input", "output"})  # rows with values between 0 and 1; the others have a sign
LABEL_WIDTH, NUMBER_WIDTH, COLUMN_WIDTH, MIN_WIDTH_WITH_NUMBERS = 10, 8, 8, 60
NAME_WIDTH, PERCENT_WIDTH, MAX_BAR_WIDTH = 11, 7, 24


@dataclass(frozen=True)
class Memory:
    """The LSTM that the figure shows, layer and index of each unit, and the embedding of each token, of length 1."""

    lstm: NumpyLSTM
    units: tuple[tuple[int, int], ...]
    embeddings: Float32Array
    example: str
    note: str
    cast: tuple[str, ...]  # it reads the line as said by someone unless this is empty


@dataclass(frozen=True)
class LineReading:
    """Steps of an LSTM along a line: `<eos>`, in a dialogue model the speaker's name, and the tokens of the line."""

    names: tuple[str, ...]
    starts: Int32Array  # first character of each token in the line; -1 for tokens that are not in it
    ends: Int32Array
    steps: tuple[LSTMStep, ...]
    reset_steps: tuple[LSTMStep, ...]  # along the last word from a state of zeros; empty for an empty line
    last_word: str


def read_line(lstm: NumpyLSTM, text: str, before: LineReading | None = None, cast: tuple[str, ...] = ()) -> LineReading:
    """Read a line, reusing the steps of the line before where both start with the same tokens."""
    tokens = tokenize_with_offsets(text, lstm.tokenizer, cast=cast)
    read_ids, positions = tokens.read_ids()
    ids, steps = [EOS_ID, *read_ids], np.array(positions, np.int64) + 1
    label = tokens.label_spans[0].tolist() if len(tokens.label_spans) else (-1, 0)
    starts, ends = (np.full(len(ids), place, np.int32) for place in label)
    starts[0], ends[0] = -1, 0
    starts[steps], ends[steps] = tokens.start_offsets, tokens.end_offsets
    last = ids[len(ids) - (len(tokens) - int(tokens.word_starts[-1])) :] if tokens.num_words else []
    return LineReading(
        tuple(_token_name(lstm.tokenizer, id) for id in ids),
        starts,
        ends,
        read_steps(lstm, ids, before.steps if before else ()),
        read_steps(lstm, last, before.reset_steps if before else ()),
        tokens.word(tokens.num_words - 1) if tokens.num_words else "",
    )


def predict_next(lstm: NumpyLSTM, steps: tuple[LSTMStep, ...]) -> LogProbs:
    return lstm.advance(steps[-1].before, steps[-1].token)[0]


class MemoryFigure(ChapterFigure[Memory]):
    """Gates and cell of one unit along a typed line, and the next words with the state kept and reset."""

    DEFAULT_CSS = """
    MemoryFigure #controls { height: 1; padding: 0 1; layout: horizontal; }
    MemoryFigure #controls Slider { width: 1fr; max-width: 48; margin-right: 2; }
    MemoryFigure #equations { height: auto; padding: 0 1; }
    MemoryFigure #numbers { height: 1fr; layout: horizontal; }
    MemoryFigure #steps { height: 7; width: 1fr; }
    MemoryFigure #next-tokens { height: 1fr; width: 40; }
    MemoryFigure.-narrow #controls { height: 2; layout: vertical; }
    MemoryFigure.-narrow #controls Slider { margin-right: 0; }
    MemoryFigure.-narrow #next-tokens { width: 33; }
    MemoryFigure.-roomy #equations { margin: 1 0; }
    MemoryFigure.-tall #controls { margin-top: 1; }
    MemoryFigure.-tall #numbers { layout: vertical; }
    MemoryFigure.-tall #next-tokens { width: 1fr; margin: 1 0 0 0; }
    """
    BINDING_GROUP_TITLE = "Memory"
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "learn-memory",
            """
            reset | x | toggle_reset   | reset state | Reset the state before the last word, or keep it
            find  | / | find_liveliest | lively unit | The unit whose cell changes most at this word
            """,
            show=True,
        ),
        *binding_table(
            "learn-memory",
            """
            next-unit     | up   | step_unit(1)  | next unit     | The next unit
            previous-unit | down | step_unit(-1) | previous unit | The previous unit
            """,
        ),
    ]

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._reading: LineReading | None = None

    def compose_figure(self) -> ComposeResult:
        yield LineBar(EXAMPLE, max_length=MAX_CHARACTERS)
        with Container(id="controls"):
            yield Slider(
                "↑↓ unit", ["0"], help_line="↑ ↓ change the unit; /: the one that changes most here", id="unit"
            )
            help_line = "What is known at the last word; space keeps or resets it"
            yield Slider("state", ["kept", "reset"], help_line=help_line, id="state")
        yield Drawing(
            "embedding", "Numbers by which the network knows the word, and the words with the most alike ones"
        )
        yield Static(id="equations", markup=False)
        with Container(id="numbers"):
            yield Drawing("steps", "Gates: 0 to 1, the others around 0; a click selects a word")
            yield Drawing("next-tokens", "The likeliest next words; ▸ marks the likeliest one")

    def load(self, cancelled: Cancellation) -> Generator[str, None, Memory]:
        source = yield from self.material.lstm(cancelled)
        lstm = find_lstm(source.model)
        assert lstm is not None, "the material returns a model with an LSTM"
        sizes = [hidden for _, hidden in lstm.config.layer_sizes()]
        units = tuple((layer, unit) for layer, size in enumerate(sizes) for unit in range(size))

        def agrees(line: str) -> bool:
            reading = read_line(lstm, line)
            return bool(predict_next(lstm, reading.steps).argmax() == predict_next(lstm, reading.reset_steps).argmax())

        example = EXAMPLE
        if lstm.tokenizer.unknown_spans(EXAMPLE):
            dataset = yield from self.material.words()
            lines = (line.text for line in islice(dataset.splits.valid, 200))
            example = find_example(EXAMPLE, lines, lstm.tokenizer, agrees, start_words=5)
        embeddings = lstm.weights["embedding.weight"]
        embeddings = embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-9)
        return Memory(lstm, units, embeddings, example, source.note, find_cast(source.model))

    def show_data(self, data: Memory) -> None:
        self.show_note(data.note)
        has_layers = data.units[-1][0] > 0
        names = [f"{layer + 1}·{unit}" if has_layers else f"{unit}" for layer, unit in data.units]
        self.query_one(Slider).set_values(names)
        self.line.set_example(data.example)
        self._read_line()
        self.action_find_liveliest()
        self.watch(self.line.input, "selection", self._show_step, init=False)

    def on_resize(self) -> None:
        is_narrow, has_note = self.size.width < MIN_WIDTH, self.data is not None and bool(self.data.note)
        num_rows = self.size.height - has_note - 2 * is_narrow
        self.set_class(is_narrow, "-narrow")
        self.set_class(num_rows >= ROOMY_HEIGHT, "-roomy")
        self.set_class(num_rows >= TALL_HEIGHT, "-tall")
        self._show_step()

    @property
    def unit(self) -> int:
        """Index of the shown unit, counted through all layers."""
        return self.query_one(Slider).index

    @property
    def is_reset(self) -> bool:
        """True if the state is reset before the last word."""
        return self.query_one("#state", Slider).index == 1

    @on(Input.Changed)
    def _read_line(self) -> None:
        if self.data is not None:
            text = sanitize_text(self.line.input.value)
            self._reading = read_line(self.data.lstm, text, self._reading, self.data.cast)
            self._show_step()
            self._show_next_tokens()

    @on(Slider.Changed, "#state")
    def _change_state(self) -> None:
        if self.data is not None:
            if self.is_reset:
                self.finish_part(0)
            self._show_step()
            self._show_next_tokens()

    def _steps(self, reading: LineReading) -> tuple[tuple[LSTMStep, ...], int, int]:
        steps, num_forgotten = reading.steps, 0
        if self.is_reset and reading.reset_steps:
            num_forgotten = len(steps) - len(reading.reset_steps)
            steps = (*steps[:num_forgotten], *reading.reset_steps)
        cursor = int(np.searchsorted(reading.starts, self.line.input.cursor_position, side="left")) - 1
        return steps, num_forgotten, max(0, min(cursor, len(steps) - 1))

    @on(Slider.Changed, "#unit")
    def _show_step(self) -> None:
        if self.data is None or self._reading is None:
            return
        reading, (layer, unit), width = self._reading, self.data.units[self.unit], self.size.width
        steps, num_forgotten, cursor = self._steps(reading)
        columns = [step.unit(layer, unit) for step in steps]
        self.query_one("#steps", Drawing).show(
            lambda width, _: step_table(reading.names, columns, cursor, num_forgotten, width)
        )
        described = describe_step(columns[cursor], width, is_liveliest=(layer, unit) == liveliest_unit(steps[cursor]))
        equations = self.query_one("#equations", Static)
        # Only another number of lines needs a layout, which takes as long as all the rest.
        equations.update(described, layout=described.plain.count("\n") + 1 != equations.size.height)
        embedding = describe_embedding(self.data, steps[cursor].token)
        self.query_one("#embedding", Drawing).show(lambda *_: embedding)

    def _show_next_tokens(self) -> None:
        if self.data is None or (reading := self._reading) is None:
            return
        drawing, lstm = self.query_one("#next-tokens", Drawing), self.data.lstm
        if not reading.reset_steps:
            drawing.show(lambda *_: Content.styled("No word yet: type a line.", MUTED))
            return
        shows_both = self.is_reset or 0 in self.finished_parts
        kept = predict_next(lstm, reading.steps)
        other = predict_next(lstm, reading.reset_steps) if shows_both else kept
        comparison = compare_next_tokens(kept, other, NUM_NEXT_TOKENS)
        word = reading.last_word
        drawing.show(lambda *size: next_tokens(comparison, lstm.tokenizer, word, *size, shows_both=shows_both))
        if shows_both and not comparison.agrees and self.line.is_edited:
            self.finish_part(1)

    def action_toggle_reset(self) -> None:
        state = self.query_one("#state", Slider)
        state.index = 1 - state.index

    def action_step_unit(self, steps: int) -> None:
        self.query_one(Slider).action_step(steps)

    def action_find_liveliest(self) -> None:
        if self._reading is not None and self.data is not None:
            steps, _, cursor = self._steps(self._reading)
            self.query_one(Slider).index = self.data.units.index(liveliest_unit(steps[cursor]))

    @on(Drawing.Clicked, "#steps")
    def _select_step(self, event: Drawing.Clicked) -> None:
        if self._reading is not None:
            *_, cursor = self._steps(self._reading)
            width = event.drawing.content_size.width
            index = _visible_steps(len(self._reading.names), cursor, width).start
            index += (event.x - _label_width(width)) // COLUMN_WIDTH
            if event.x >= _label_width(width) and index < len(self._reading.names):
                self.line.input.cursor_position = int(self._reading.ends[index])


def _label_width(width: int) -> int:
    return LABEL_WIDTH + (NUMBER_WIDTH if width >= MIN_WIDTH_WITH_NUMBERS else 0)


def _visible_steps(num_steps: int, cursor: int, width: int) -> range:
    count = max(1, (width - _label_width(width)) // COLUMN_WIDTH)
    first = max(0, min(cursor - count // 2, num_steps - count))
    return range(first, min(first + count, num_steps))


def step_table(names: tuple[str, ...], columns: list[UnitStep], cursor: int, num_forgotten: int, width: int) -> Content:
    """Return a column of bars for each token: gates, candidate, cell and hidden value of a unit."""
    visible, label_width = _visible_steps(len(columns), cursor, width), _label_width(width)
    cell_scale = max([1.0, *(abs(step.cell) for step in columns)])
    styles = ["$accent" if index == cursor else MUTED if index < num_forgotten else "" for index in visible]
    header = [Content.styled(("… " if visible.start else "").rjust(label_width), MUTED)]
    for index, style in zip(visible, styles, strict=True):
        name, mark = truncate(names[index], COLUMN_WIDTH - 1), SELECTED_MARK if index == cursor else " "
        cell = Content.assemble((mark, "bold $accent"), (name, f"bold {style}" if index == cursor else style))
        header.append(cell.pad_right(COLUMN_WIDTH - 1 - cell_len(name)))
    lines = [Content("").join(header)]
    for row in ROWS:
        scale = cell_scale if row == "cell" else 1.0
        parts = [((f"cell ±{scale:.1f}" if row == "cell" else row).ljust(LABEL_WIDTH), MUTED)]
        if label_width > LABEL_WIDTH:
            parts.append((f"{getattr(columns[cursor], row):{'' if row in GATES else '+'}7.3f} ", "bold"))
        for index, style in zip(visible, styles, strict=True):
            value = getattr(columns[index], row) / scale
            drawn = bar(value, COLUMN_WIDTH - 1) if row in GATES else signed_bar(value, (COLUMN_WIDTH - 1) // 2)
            is_reset_before = index == num_forgotten > 0
            parts += [("┃" if is_reset_before else " ", "$accent"), (drawn.ljust(COLUMN_WIDTH - 1), style)]
        lines.append(Content.assemble(*parts))
    return Content("\n").join(lines)


def describe_step(step: UnitStep, width: int, *, is_liveliest: bool = False) -> Content:
    """Return the equations of a step with its numbers, on two lines, or on three where they are too long."""
    terms = [
        ("cell   ", step.cell, "+"), (" = forget ", step.forget, ""), (" × before ", step.cell_before, "+"),
        (f"{' ' if width >= 78 else chr(10) + ' ' * 13}+ input ", step.input, ""),
        (" × candidate ", step.candidate, "+"), ("\nhidden ", step.hidden, "+"),
        (" = output ", step.output, ""), (" × tanh(cell ", step.cell, "+"),
    ]  # fmt: skip
    parts: list[tuple[str, str]] = []
    for name, value, sign in terms:
        is_result = name.strip() in ("cell", "hidden")
        parts += [(name, MUTED), (f"{value:{sign}.3f}", "bold $accent" if is_result else "bold")]
    equations, note = Content.assemble(*parts, (")", MUTED)), "  /: changes most here"
    has_room = cell_len(equations.plain.rpartition("\n")[2]) + len(note) <= width - 2
    return Content.assemble(equations, (note, MUTED)) if is_liveliest and has_room else equations


def describe_embedding(data: Memory, token: int) -> Content:
    """Return the first numbers of the embedding of a token, and the tokens with the most similar directions."""
    tokenizer = data.lstm.tokenizer
    similarities = data.embeddings @ data.embeddings[token]
    similarities[[token, EOS_ID]] = -np.inf
    nearest = np.argsort(-similarities)[:NUM_NEIGHBOURS].tolist()
    numbers = " ".join(f"{value:+.2f}" for value in data.embeddings[token, :3].tolist())
    names = ", ".join(_token_name(tokenizer, id) for id in nearest)
    return Content.assemble(
        ("embedding of ", MUTED), (_token_name(tokenizer, token), "bold"), (f": {numbers} … alike: ", MUTED), names
    )


def next_tokens(
    comparison: NextTokenComparison, tokenizer: Tokenizer, word: str, width: int, height: int, *, shows_both: bool
) -> Content:
    """Return the likeliest next tokens with the state kept and the state reset before a word, and how they differ."""
    column_width = (width - NAME_WIDTH) // 2
    bar_width = max(1, min(MAX_BAR_WIDTH, column_width - PERCENT_WIDTH - 1))
    column_width = PERCENT_WIDTH + bar_width + 1
    count = max(1, min(len(comparison.ids), height - 3))
    scale = float(comparison.probs[: 1 + shows_both, :count].max())
    headings = ("state kept", "state reset") if column_width > len("state reset") else ("kept", "reset")
    lines = [
        Content.assemble(
            (f"next {token_noun(tokenizer)}".ljust(NAME_WIDTH), MUTED),
            (f" {headings[0]:<{column_width - 1}}", "bold $accent"),
            (f" {headings[1]}" if shows_both else "", "bold"),
        )
    ]
    for row, id in enumerate(comparison.ids[:count].tolist()):
        parts: list[tuple[str, str]] = [(fit_cells(next_token_name(tokenizer, id), NAME_WIDTH), "")]
        for column in range(1 + shows_both):
            prob, is_best = float(comparison.probs[column, row]), id == comparison.best[column]
            percent = " <1 %" if prob < 0.005 else f"{100 * prob:3.0f} %"
            parts += [
                (SELECTED_MARK if is_best else " ", "bold $accent"),
                (f"{percent} ", "bold" if is_best else ""),
                (bar(prob / scale, bar_width).ljust(bar_width + 1), "" if column else "$accent"),
            ]
        lines.append(Content.assemble(*parts))
    if not shows_both:
        return Content("\n").join([*lines, Content.styled(f"x resets the state before “{word}”", MUTED)])
    kept, reset = (next_token_name(tokenizer, id) for id in comparison.best)
    verdict = f"both expect “{kept}”" if comparison.agrees else f"disagree: “{kept}” or “{reset}”"
    divergence = Content.assemble(("KL divergence ", MUTED), (f"{comparison.divergence_bits:.2f} bits", "bold"))
    return Content("\n").join([*lines, divergence, Content.styled(verdict, "" if comparison.agrees else "bold")])


def _token_name(tokenizer: Tokenizer, id: int) -> str:
    special = {EOS_ID: EOS, tokenizer.unk_id: UNK}
    return special.get(id) or format_lone_token(tokenizer.tokens[id].rstrip(" ") or tokenizer.tokens[id])
