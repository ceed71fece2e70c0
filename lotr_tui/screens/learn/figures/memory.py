"""Figure of the chapter on memory: one unit of an LSTM along a typed line, and the next words with a state reset."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Input, Static

from engine.analysis import activations
from engine.analysis.activations import LSTMStep, UnitStep
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.arrays import Float32Array, Int32Array
from engine.data.tokenizers import EOS, EOS_ID, UNK, Tokenizer
from engine.models.base import LogProbs
from engine.models.numpy_lstm import NumpyLSTM
from engine.runtime.process import Cancellation
from lotr_tui.formatting import format_lone_token, token_noun
from lotr_tui.learn.material import Material, find_example
from lotr_tui.screens.inspect.heat_strip import HeatStrips, StripRow
from lotr_tui.screens.inspect.text_view import next_token_name, sanitize_text
from lotr_tui.screens.learn.figure import ChapterFigure, Drawing, LineBar, WordBar, word_bars
from lotr_tui.session.session_model import find_cast
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.slider import Slider

EXAMPLE = "They are taking the hobbits to"
MAX_CHARACTERS = 200  # of the line, so that a large model reads it within the time between two keys
NUM_NEXT_TOKENS, NUM_NEIGHBOURS = 24, 5
MIN_WIDTH = 70  # columns for both controls on one line
ROOMY_HEIGHT, TALL_HEIGHT = 14, 23  # rows for blank lines, and for the next words below the steps
ROWS = ("forget", "input", "candidate", "cell", "output", "hidden")
GATES = frozenset({"forget", "input", "output"})  # rows with values between 0 and 1; the others have a sign
LABEL_WIDTH = 11


@dataclass(frozen=True)
class Memory:
    lstm: NumpyLSTM
    units: tuple[tuple[int, int], ...]  # layer and index
    embeddings: Float32Array  # [tokens, size], of length 1
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
        activations.read_steps(lstm, ids, before.steps if before else ()),
        activations.read_steps(lstm, last, before.reset_steps if before else ()),
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
    MemoryFigure HeatStrips { height: 9; width: 1fr; }
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
            help_line = "Gates: 0 to 1, the others around 0; ← → or a click select a word"
            label = "z shows the words"
            yield HeatStrips(LABEL_WIDTH, lambda: help_line, self._token_label, first_label=label, is_zoomed=True)
            yield Drawing("next-tokens", "The likeliest next words; ▸ marks the likeliest one")

    def _token_label(self, token: int) -> str:
        return "" if self._reading is None else self._reading.names[token]

    def load(self, cancelled: Cancellation) -> Generator[str, None, Memory]:
        source = yield from self.material.model_with("lstm", cancelled)
        lstm = activations.find_lstm(source.model)
        assert lstm is not None, "the material returns a model with an LSTM"
        sizes = [hidden for _, hidden in lstm.config.layer_sizes()]
        units = tuple((layer, unit) for layer, size in enumerate(sizes) for unit in range(size))

        def agrees(line: str) -> bool:
            reading = read_line(lstm, line)
            return bool(predict_next(lstm, reading.steps).argmax() == predict_next(lstm, reading.reset_steps).argmax())

        example = EXAMPLE
        if lstm.tokenizer.unknown_spans(EXAMPLE):
            dataset = yield from self.material.words()
            lines = (line.text for line in dataset.splits.valid)
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
        return self.query_one(Slider).index

    @property
    def is_reset(self) -> bool:
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
        columns, strips = [step.unit(layer, unit) for step in steps], self.query_one(HeatStrips)
        rows = []
        for name in ROWS:
            values = np.array([getattr(column, name) for column in columns], np.float32)
            scale = max(1.0, float(np.abs(values).max())) if name == "cell" else 1.0
            label = f"cell ±{scale:.1f}" if name == "cell" else name
            rows.append(StripRow(label, values, "gate" if name in GATES else "signed", scale))
        reset = f"the state is reset before “{reading.last_word}”" if num_forgotten else "the state goes on"
        strips.item = cursor
        strips.show(rows, [f"unit {unit} along the line", reset], reading.names)
        is_liveliest = (layer, unit) == activations.liveliest_unit(steps[cursor])
        described = describe_step(columns[cursor], width, is_liveliest=is_liveliest)
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
        comparison = activations.compare_next_tokens(kept, other, NUM_NEXT_TOKENS)
        best, other_best = (next_token_name(lstm.tokenizer, id) for id in comparison.best)
        bars = []
        for id, prob, reset_prob in zip(comparison.ids.tolist(), *comparison.probs.tolist(), strict=True):
            prob, before = (reset_prob, prob) if shows_both else (prob, None)
            bars.append(WordBar(next_token_name(lstm.tokenizer, id), prob, before, id == comparison.best[0]))
        title, headings = f"next {token_noun(lstm.tokenizer)}", ("kept", "reset")[: 1 + shows_both]
        notes = [Content.styled(f"x resets the state before “{reading.last_word}”", MUTED)]
        if shows_both:
            divergence = f"{comparison.divergence_bits:.2f} bits"
            verdict = f"both expect “{best}”" if comparison.agrees else f"disagree: “{best}” or “{other_best}”"
            notes = [
                Content.assemble(("KL divergence ", MUTED), (divergence, "bold")),
                Content.styled(verdict, "" if comparison.agrees else "bold"),
            ]
        drawing.show(
            lambda width, height: Content("\n").join([word_bars(title, headings, bars, width, height - 2), *notes])
        )
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
            self.query_one(Slider).index = self.data.units.index(activations.liveliest_unit(steps[cursor]))

    @on(HeatStrips.CursorMoved)
    def _select_step(self) -> None:
        if self._reading is not None:
            *_, cursor = self._steps(self._reading)
            if (item := self.query_one(HeatStrips).item) != cursor:
                self.line.input.cursor_position = max(0, int(self._reading.ends[item]))
            self._show_step()


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
    tokenizer = data.lstm.tokenizer
    similarities = data.embeddings @ data.embeddings[token]
    similarities[[token, EOS_ID]] = -np.inf
    nearest = np.argsort(-similarities)[:NUM_NEIGHBOURS].tolist()
    numbers = " ".join(f"{value:+.2f}" for value in data.embeddings[token, :3].tolist())
    names = ", ".join(_token_name(tokenizer, id) for id in nearest)
    return Content.assemble(
        ("embedding of ", MUTED), (_token_name(tokenizer, token), "bold"), (f": {numbers} … alike: ", MUTED), names
    )


def _token_name(tokenizer: Tokenizer, id: int) -> str:
    special = {EOS_ID: EOS, tokenizer.unk_id: UNK}
    return special.get(id) or format_lone_token(tokenizer.tokens[id].rstrip(" ") or tokenizer.tokens[id])
