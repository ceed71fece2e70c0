"""Figure of the chapter on memory: one unit of an LSTM along a typed line, and the next words with a state reset."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content

from engine.analysis import activations
from engine.analysis.activations import LSTMStep, UnitStep
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.arrays import Float32Array, Int32Array
from engine.data.tokenizers import EOS, EOS_ID, UNK, Tokenizer
from engine.models.base import LogProbs
from engine.models.numpy_lstm import NumpyLSTM
from engine.runtime.process import Cancellation
from lotr_tui.formatting import format_lone_token, token_noun
from lotr_tui.learn.material import find_example
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
WIDE = 78  # columns for an equation on one line
ROWS = ("forget", "input", "candidate", "cell", "output", "hidden")
GATES = frozenset({"forget", "input", "output"})  # rows with values between 0 and 1; the others have a sign
LABEL_WIDTH = 11


class Memory(NamedTuple):
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
    MemoryFigure #controls { height: 2; padding: 0 1; }
    MemoryFigure #controls Slider { width: 1fr; max-width: 48; margin-right: 2; }
    MemoryFigure #embedding { height: 1; }
    MemoryFigure #equations { height: 3; }
    MemoryFigure #numbers { height: 1fr; layout: horizontal; }
    MemoryFigure HeatStrips { height: 9; max-height: 100%; width: 1fr; }
    MemoryFigure #next-tokens { height: 1fr; width: 33; }
    MemoryFigure.-wide #controls { height: 1; layout: horizontal; }
    MemoryFigure.-wider #equations { height: 2; }
    MemoryFigure.-wide #next-tokens { width: 40; }
    MemoryFigure.-roomy #equations { margin: 1 0; }
    MemoryFigure.-tall #controls { margin-top: 1; }
    MemoryFigure.-tall #numbers { layout: vertical; }
    MemoryFigure.-tall #next-tokens { width: 1fr; margin: 1 0 0 0; }
    """
    LAYOUTS: ClassVar = {"-wide": (70, 0), "-wider": (WIDE + 2, 0), "-roomy": (0, 18), "-tall": (0, 25)}
    BINDING_GROUP_TITLE = "Memory"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-memory",
        """
        reset | x | toggle_reset   | reset state | Reset the state before the last word, or keep it
        find  | / | find_liveliest | lively unit | The unit whose cell changes most at this word
        """,
        show=True,
    )
    _reading: LineReading | None = None

    def compose_figure(self) -> ComposeResult:
        yield LineBar(EXAMPLE, max_length=MAX_CHARACTERS)
        with Container(id="controls"):
            yield Slider("↑↓ unit", ["0"], help_line="↑ ↓ change the unit; / finds the liveliest one here", id="unit")
            yield Slider("state", ["kept", "reset"], help_line="At the last word; ← → keep or reset it", id="state")
        yield Drawing(id="embedding")
        yield Drawing(id="equations")
        with Container(id="numbers"):
            help_line = "Gates: 0 to 1, the others around 0; ← → or a click select a word"
            label = "z shows the words"
            yield HeatStrips(LABEL_WIDTH, lambda: help_line, self._token_label, first_label=label, is_zoomed=True)
            yield Drawing(id="next-tokens")

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

    def set_up(self) -> None:
        self.show_note(self.data.note)
        has_layers = self.data.units[-1][0] > 0
        names = [f"{layer + 1}·{unit}" if has_layers else f"{unit}" for layer, unit in self.data.units]
        self.query_one(Slider).set_values(names)
        self.line.set_example(self.data.example)
        self.action_find_liveliest()

    @property
    def is_reset(self) -> bool:
        return self.query_one("#state", Slider).index == 1

    def _read_line(self) -> tuple[LineReading, tuple[LSTMStep, ...], int]:
        """Return the line as it is read, its steps with the chosen state, and the step at the cursor."""
        line = self.line.input
        self._reading = reading = read_line(self.data.lstm, sanitize_text(line.value), self._reading, self.data.cast)
        steps = reading.steps
        if self.is_reset and reading.reset_steps:
            steps = (*steps[: -len(reading.reset_steps)], *reading.reset_steps)
        cursor = int(np.searchsorted(reading.starts, line.cursor_position, side="left")) - 1
        return reading, steps, max(0, min(cursor, len(steps) - 1))

    def show_view(self) -> None:
        reading, steps, cursor = self._read_line()
        (layer, unit), strips = self.data.units[self.query_one(Slider).index], self.query_one(HeatStrips)
        if self.is_reset:
            self.finish_part(0)
        columns = [step.unit(layer, unit) for step in steps]
        rows = []
        for name in ROWS:
            values = np.array([getattr(column, name) for column in columns], np.float32)
            scale = max(1.0, float(np.abs(values).max())) if name == "cell" else 1.0
            label = f"cell ±{scale:.1f}" if name == "cell" else name
            rows.append(StripRow(label, values, "gate" if name in GATES else "signed", scale))
        is_forgotten = self.is_reset and reading.reset_steps
        state = f"the state is reset before “{reading.last_word}”" if is_forgotten else "the state goes on"
        strips.item = cursor
        strips.show(rows, [f"unit {unit} along the line", state], reading.names)
        is_liveliest = (layer, unit) == activations.liveliest_unit(steps[cursor])
        equations = self.query_one("#equations", Drawing)
        equations.show(lambda width, _: describe_step(columns[cursor], width, is_liveliest=is_liveliest))
        self.query_one("#embedding", Drawing).show(describe_embedding(self.data, steps[cursor].token))
        self._show_next_tokens(reading)

    def _show_next_tokens(self, reading: LineReading) -> None:
        drawing, lstm = self.query_one("#next-tokens", Drawing), self.data.lstm
        if not reading.reset_steps:
            drawing.show(Content.styled("No word yet: type a line.", MUTED))
            return
        shows_both = 0 in self.finished_parts
        kept = predict_next(lstm, reading.steps)
        other = predict_next(lstm, reading.reset_steps) if shows_both else kept
        comparison = activations.compare_next_tokens(kept, other, NUM_NEXT_TOKENS)
        best, other_best = (next_token_name(lstm.tokenizer, id) for id in comparison.best)
        bars = []
        for id, prob, reset_prob in zip(comparison.ids.tolist(), *comparison.probs.tolist(), strict=True):
            prob, before = (reset_prob, prob) if shows_both else (prob, None)
            bars.append(WordBar(next_token_name(lstm.tokenizer, id), prob, before, id == comparison.best[0]))
        title, headings = f"next {token_noun(lstm.tokenizer)}", ("kept", "reset")[: 1 + shows_both]
        notes = Content.styled(f"\nx resets the state before “{reading.last_word}”", MUTED)
        if shows_both:
            divergence = f"{comparison.divergence_bits:.2f} bits\n"
            verdict = f"both expect “{best}”" if comparison.agrees else f"disagree: “{best}” or “{other_best}”"
            style = "" if comparison.agrees else "bold"
            notes = Content.assemble(("\nKL divergence ", MUTED), (divergence, "bold"), (verdict, style))
        drawing.show(lambda width, height: word_bars(title, headings, bars, None, width, height - 2) + notes)
        if shows_both and not comparison.agrees and self.line.is_edited:
            self.finish_part(1)

    def action_toggle_reset(self) -> None:
        state = self.query_one("#state", Slider)
        state.index = 1 - state.index

    def action_find_liveliest(self) -> None:
        _, steps, cursor = self._read_line()
        self.query_one(Slider).index = self.data.units.index(activations.liveliest_unit(steps[cursor]))

    @on(HeatStrips.CursorMoved)
    def _select_step(self) -> None:
        reading, _, cursor = self._read_line()
        if (item := self.query_one(HeatStrips).item) != cursor:
            self.line.input.cursor_position = max(0, int(reading.ends[item]))
        self.show_view()


def describe_step(step: UnitStep, width: int, *, is_liveliest: bool = False) -> Content:
    """Return the equations of a step with its numbers, on two lines, or on three where they are too long."""
    terms = [
        ("cell   ", step.cell, "+"), (" = forget ", step.forget, ""), (" × before ", step.cell_before, "+"),
        (f"{' ' if width >= WIDE else chr(10) + ' ' * 13}+ input ", step.input, ""),
        (" × candidate ", step.candidate, "+"), ("\nhidden ", step.hidden, "+"),
        (" = output ", step.output, ""), (" × tanh(cell ", step.cell, "+"),
    ]  # fmt: skip
    parts: list[tuple[str, str]] = []
    for name, value, sign in terms:
        is_result = name.strip() in ("cell", "hidden")
        parts += [(name, MUTED), (f"{value:{sign}.3f}", "bold $accent" if is_result else "bold")]
    return Content.assemble(*parts, (f"){'  /: changes most here' if is_liveliest else ''}", MUTED))


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
