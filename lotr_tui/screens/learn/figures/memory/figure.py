"""Figure of the chapter on memory."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Horizontal
from textual.widgets import Input, Static

from engine.analysis.activations import compare_next_tokens, find_lstm, liveliest_unit
from engine.models.numpy_lstm import NumpyLSTM
from engine.runtime.worker import Cancellation
from lotr_tui.formatting import token_noun
from lotr_tui.learn.example_line import START_WORDS, find_example
from lotr_tui.learn.lstm_line import LineReading, agrees_after_reset, predict_next, read_line
from lotr_tui.learn.material import Material
from lotr_tui.screens.inspect.page import next_token_name, sanitize_text
from lotr_tui.screens.learn.figure import ChapterFigure
from lotr_tui.screens.learn.figures.memory.next_tokens import NextTokens
from lotr_tui.screens.learn.figures.memory.step_table import StepColumn, StepTable, describe_step
from lotr_tui.screens.learn.line_bar import LineBar
from lotr_tui.session.session_model import find_cast
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.choice_bar import ChoiceBar
from lotr_tui.widgets.slider import Slider

EXAMPLE = "They are taking the hobbits to"
MAX_CHARACTERS = 200
"""Maximum length of the line, so that a large model reads it within the time between two keys."""
MAX_EXAMPLES = 200
"""Held-out lines of a user's corpus that are tried as the example."""
NUM_NEXT_TOKENS = 24
MIN_WIDTH = 70
"""Columns for both controls on one line."""
ROOMY_HEIGHT, TALL_HEIGHT = 13, 22
"""Rows for blank lines around the equations, and for the next words below the steps."""


@dataclass(frozen=True)
class Memory:
    """The LSTM that the figure shows, and the layer and index of each unit."""

    lstm: NumpyLSTM
    units: tuple[tuple[int, int], ...]
    example: str
    note: str = ""
    cast: tuple[str, ...] = ()
    """Cast of the LSTM; it reads the line as said by someone unless this is empty."""


class MemoryFigure(ChapterFigure[Memory]):
    """Gates and cell of one unit along a typed line, and the next words with the state kept and reset."""

    DEFAULT_CSS = """
    MemoryFigure #controls { height: 1; padding: 0 1; layout: horizontal; }
    MemoryFigure #controls Slider { width: 1fr; max-width: 48; margin-right: 2; }
    MemoryFigure #equations { height: auto; padding: 0 1; }
    MemoryFigure #numbers { height: 1fr; padding: 0 1; layout: horizontal; }
    MemoryFigure NextTokens { width: 38; margin-left: 1; }
    MemoryFigure.-narrow #controls { height: 2; layout: vertical; }
    MemoryFigure.-narrow #controls Slider { margin-right: 0; }
    MemoryFigure.-narrow NextTokens { width: 31; }
    MemoryFigure.-roomy #equations { margin: 1 0; }
    MemoryFigure.-tall #controls { margin-top: 1; }
    MemoryFigure.-tall #numbers { layout: vertical; }
    MemoryFigure.-tall NextTokens { width: 1fr; margin: 1 0 0 0; }
    """
    BINDING_GROUP_TITLE = "Memory"
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "learn-memory",
            """
            reset     | f8   | toggle_reset   | reset       | Reset the state before the last word, or keep it
            liveliest | f9   | find_liveliest | lively unit | The unit whose cell changes most at this word
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
        """Yield the line, the controls, the equations, the bars of the unit and the next words."""
        yield LineBar(EXAMPLE, max_length=MAX_CHARACTERS)
        with Container(id="controls"):
            yield Slider(
                "↑↓ unit", ["0"], help_line="↑ ↓ change the unit; f9: the one that changes most here", id="unit"
            )
            yield ChoiceBar(
                "f8 state",
                ["kept", "reset before the last word"],
                help_line="What is known at the last word; space keeps or resets it",
                id="state",
            )
        yield Static(id="equations", markup=False)
        with Horizontal(id="numbers"):
            yield StepTable()
            yield NextTokens()

    def load(self, cancelled: Cancellation) -> Generator[str, None, Memory]:
        """Load the LSTM."""
        small = yield from self.material.lstm(cancelled)
        lstm = find_lstm(small.model)
        assert lstm is not None, "the material returns a model with an LSTM"
        sizes = [hidden for _, hidden in lstm.config.layer_sizes()]
        units = tuple((layer, unit) for layer, size in enumerate(sizes) for unit in range(size))
        example = EXAMPLE
        if lstm.tokenizer.unknown_spans(EXAMPLE):
            dataset = yield from self.material.words()
            lines = (line.text for line in islice(dataset.splits.valid, MAX_EXAMPLES))
            example = find_example(
                EXAMPLE, lines, lstm.tokenizer, lambda line: agrees_after_reset(lstm, line), start_words=START_WORDS
            )
        return Memory(lstm, units, example, small.note, find_cast(small.model))

    def show_data(self, data: Memory) -> None:
        """Show the example line, with the unit that changes most at its last word."""
        self.show_note(data.note)
        has_layers = data.units[-1][0] > 0
        self.query_one(Slider).set_values(
            [f"{layer + 1}·{unit}" if has_layers else f"{unit}" for layer, unit in data.units]
        )
        self.query_one(LineBar).set_example(data.example)
        self._read_line()
        self.action_find_liveliest()
        self.watch(self.query_one(LineBar).input, "selection", self._show_step, init=False)

    def on_resize(self) -> None:
        """Lay out the parts for the new size."""
        is_narrow, has_note = self.size.width < MIN_WIDTH, self.data is not None and bool(self.data.note)
        num_rows = self.size.height - has_note - 2 * is_narrow
        self.set_class(is_narrow, "-narrow")
        self.set_class(num_rows >= ROOMY_HEIGHT, "-roomy")
        self.set_class(num_rows >= TALL_HEIGHT, "-tall")
        self._show_step()

    # State of the controls

    @property
    def unit(self) -> int:
        """Index of the shown unit, counted through all layers."""
        return self.query_one(Slider).index

    @property
    def is_reset(self) -> bool:
        """True if the state is reset before the last word."""
        return self.query_one(ChoiceBar).index == 1

    @property
    def _shows_both(self) -> bool:
        """True if both predictions are shown: with the state reset, and from then on with the state kept too."""
        return self.is_reset or 0 in self._finished_parts

    # Updates

    @on(Input.Changed)
    def _read_line(self) -> None:
        """Read the typed line."""
        if self.data is None:
            return
        text = sanitize_text(self.query_one(LineBar).input.value)
        self._reading = read_line(self.data.lstm, text, self._reading, cast=self.data.cast)
        self._show_step()
        self._show_next_tokens()

    @on(ChoiceBar.Changed)
    def _change_state(self) -> None:
        """Keep or reset the state."""
        if self.data is None:
            return
        if self.is_reset:
            self.finish_part(0)
        self._show_step()
        self._show_next_tokens()

    @on(Slider.Changed)
    def _show_step(self) -> None:
        """Show the unit on the line, and the equations of the step under the cursor."""
        reading, data = self._reading, self.data
        if reading is None or data is None:
            return
        layer, unit = data.units[self.unit]
        num_forgotten = reading.num_forgotten if self.is_reset and reading.reset_steps else 0
        columns = [
            StepColumn(name, step.unit(layer, unit), index < num_forgotten)
            for index, (name, step) in enumerate(
                zip(reading.names, reading.steps_with(is_reset=self.is_reset), strict=True)
            )
        ]
        cursor = self._step_at_cursor(reading)
        self.query_one(StepTable).show(columns, cursor)
        equations = self.query_one("#equations", Static)
        is_liveliest = (layer, unit) == self._find_liveliest(reading)
        described = describe_step(columns[cursor].step, self.size.width, is_liveliest=is_liveliest)
        # Only another number of lines needs a layout, which takes as long as all the rest.
        equations.update(described, layout=described.plain.count("\n") + 1 != equations.size.height)

    def _step_at_cursor(self, reading: LineReading) -> int:
        return min(reading.step_at(self.query_one(LineBar).input.cursor_position), len(reading.names) - 1)

    def _find_liveliest(self, reading: LineReading) -> tuple[int, int]:
        """Return layer and unit whose cell changes most at the word of the cursor."""
        steps = reading.steps_with(is_reset=self.is_reset)
        return liveliest_unit(steps[self._step_at_cursor(reading)])

    def _show_next_tokens(self) -> None:
        """Predict the next word with the state kept and reset."""
        reading, data = self._reading, self.data
        if reading is None or data is None:
            return
        shown = self.query_one(NextTokens)
        if not reading.reset_steps:
            shown.show(None)
            return
        kept = predict_next(data.lstm, reading.steps)
        other = predict_next(data.lstm, reading.reset_steps) if self._shows_both else kept
        comparison = compare_next_tokens(kept, other, NUM_NEXT_TOKENS)
        tokenizer = data.lstm.tokenizer
        kept_best, other_best = (next_token_name(tokenizer, id) for id in comparison.best)
        shown.show(
            comparison,
            [next_token_name(tokenizer, id) for id in comparison.ids.tolist()],
            (kept_best, other_best),
            noun=token_noun(tokenizer),
            last_word=reading.last_word,
            shows_both=self._shows_both,
        )
        if self._shows_both and not comparison.agrees and self.query_one(LineBar).is_edited:
            self.finish_part(1)

    # Keys and mouse

    def action_toggle_reset(self) -> None:
        """Keep the state, or reset it before the last word."""
        self.query_one(ChoiceBar).action_step(1)

    def action_step_unit(self, steps: int) -> None:
        """Show a unit some steps further."""
        self.query_one(Slider).action_step(steps)

    def action_find_liveliest(self) -> None:
        """Show the unit whose cell changes most at the word of the cursor."""
        if self._reading is not None and self.data is not None:
            self.query_one(Slider).index = self.data.units.index(self._find_liveliest(self._reading))

    @on(StepTable.ColumnSelected)
    def _select_column(self, message: StepTable.ColumnSelected) -> None:
        """Move the cursor of the line to the end of a clicked token."""
        if self._reading is not None:
            self.query_one(LineBar).input.cursor_position = int(self._reading.ends[message.index])
