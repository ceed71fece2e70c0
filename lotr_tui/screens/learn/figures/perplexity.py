"""Figure of the chapter on perplexity: the bits of each word of a line by several models, and of the held-out text."""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from time import perf_counter
from typing import Any

import numpy as np
from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.content import Content

from engine.analysis.evaluation import evaluate, perplexity
from engine.analysis.token_scores import TokenScores
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.tokenizers import UNK
from engine.errors import CorpusError
from engine.models.base import LanguageModel
from engine.models.ngram import Unigram
from engine.runtime.process import Cancellation
from lotr_tui.formatting import (
    LINE_END_MARK,
    MISSING,
    fit_cells,
    format_lone_token,
    format_percent,
    format_perplexity,
    truncate,
)
from lotr_tui.learn.lines import find_example
from lotr_tui.learn.material import Material
from lotr_tui.screens.inspect.page import visible_part
from lotr_tui.screens.inspect.text_screen import marks_to_newlines
from lotr_tui.screens.learn.figure import ChapterFigure, Drawing, LineBar
from lotr_tui.session.session_model import find_cast, is_slow
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.slider import Slider

EXAMPLE = "What do you think of the Ring, Aragorn?"
CERTAIN_BITS, MIN_LINE_WORDS = 1.0, 5
MAX_HELD_OUT_TOKENS = 20_000
MAX_SECONDS = 0.015  # that the scoring of a line may take in the screen's thread, which shows it sooner than another
PAUSE = 0.3  # seconds without a key before a slow model scores the line
NAME_WIDTH, NUM_EXPECTED, GAP = 16, 5, 2
# Bits from which a word is usual, surprising and astonishing.
SHADES = ((3.0, "dim"), (6.0, ""), (10.0, "underline on $accent 20%"), (math.inf, "bold underline on $accent 50%"))


@dataclass(frozen=True)
class ScoringModel:
    """A model that scores lines, and its bits of a token and perplexity on the held-out text, if it reads that."""

    name: str
    model: LanguageModel
    eos_per_line: bool = True
    bits: float | None = None
    seconds_per_token: float = 0.0

    def score(self, line: str, before: TokenScores | None = None) -> TokenScores:
        """Return the scores of a line, without a value where those of the line before do not hold."""
        tokenizer, cast = self.model.tokenizer, find_cast(self.model)
        tokens = tokenize_with_offsets(line, tokenizer, eos_per_line=self.eos_per_line, cast=cast)
        return TokenScores(tokens, tokenizer, before)


@dataclass(frozen=True)
class PerplexityData:
    """The models, from word frequencies to the network or the user's model, and the number of held-out words."""

    models: tuple[ScoringModel, ...]
    num_held_out: int
    example: str
    note: str


class PerplexityFigure(ChapterFigure[PerplexityData]):
    """A line with the bits of each word by one model, and the perplexity of line and held-out text by all."""

    DEFAULT_CSS = """
    PerplexityFigure Slider { margin: 0 1; max-width: 48; }
    PerplexityFigure #words { height: auto; max-height: 8; margin: 1 0; }
    PerplexityFigure #table { margin-top: 1; }
    PerplexityFigure.-low #words, PerplexityFigure.-low #table { margin: 0; }
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._scores: list[TokenScores] = []  # of the line by each model
        self._cells: list[tuple[int, int, int]] = []  # row, first column and end of each word
        self._has_moved = False  # True once the student has moved the cursor or changed the line

    def compose_figure(self) -> ComposeResult:
        yield LineBar(EXAMPLE, "Type; ctrl+← ctrl+→ choose a word")
        yield Slider("bits by", ["…"], help_line="Model whose bits the words show; ← → change it", id="model")
        yield Drawing("words", "Bits of surprisal below each word; a click selects one")
        yield Drawing("word")
        yield Drawing("table", "Perplexity: 2 to the power of the mean bits of a word")

    def load(self, cancelled: Cancellation) -> Generator[str, None, PerplexityData]:
        dataset, own = (yield from self.material.words()), self.material.session_model
        known = self.material.results.get(PerplexityData)
        if isinstance(known, PerplexityData):
            return known
        models = [ScoringModel("unigram", Unigram(dataset.train, dataset.tokenizer))]
        with suppress(CorpusError):  # the corpus is too large to count
            models.append(ScoringModel("5-gram", (yield from self.material.counts(5))))
        small, note = (yield from self.material.class_model("lstm", cancelled)), ""
        network = ScoringModel(small.name, small.model)
        models.append(network)
        ids = dataset.valid[:MAX_HELD_OUT_TOKENS]
        for index, each in enumerate(models):
            yield f"reading the held-out text of {self.material.corpus_name} with the {each.name} …"
            models[index] = replace(each, bits=evaluate(each.model, ids).bits_per_token)
        if own is not None:
            models.append(ScoringModel(own.name, own.model, own.predicts_eos))
            if own.model.tokenizer == dataset.tokenizer:
                models[-1] = replace(models[-1], bits=evaluate(own.model, ids).bits_per_token)
            else:
                note = f"{truncate(own.name, 20)} reads other tokens, so no perplexity of it can be compared"

        def has_certain_word(line: str) -> bool:
            scores = network.score(line)
            list(scores.read(network.model, cancelled))
            return bool((scores.word_bits[1:] < CERTAIN_BITS).any())

        lines = (line.text for line in islice(dataset.splits.valid, 300))
        example = find_example(EXAMPLE, lines, dataset.tokenizer, has_certain_word)
        for index, each in enumerate(models):
            started, scores = perf_counter(), each.score(example)
            list(scores.read(each.model, cancelled))
            seconds = (perf_counter() - started) / max(1, len(scores.tokens))
            models[index] = replace(each, seconds_per_token=seconds)
        data = PerplexityData(tuple(models), len(ids), example, note)
        self.material.results[PerplexityData] = data
        return data

    def show_data(self, data: PerplexityData) -> None:
        self.show_note(data.note)
        names = [truncate(each.name, NAME_WIDTH) for each in data.models]
        self.query_one(Slider).set_values(names, len(names) - 1)
        self.line.set_example(data.example)
        self._has_moved = self.line.is_edited
        self.follow_cursor(self._follow_line)

    def on_resize(self) -> None:
        self.set_class(self.size.height < 18, "-low")
        self._show_line()

    # Scores

    def _follow_line(self) -> None:
        """Score a line that has changed: at once if that is quick, or else in a thread, and keep the words before."""
        if self.data is None:
            return
        self._has_moved |= bool(self._scores)
        text = self.line.text
        if self._scores and text == self._scores[0].tokens.text:
            self._show_line()
            return
        models: Sequence[ScoringModel] = self.data.models
        before: Sequence[TokenScores | None] = self._scores or [None] * len(models)
        scores = self._scores = [each.score(text, old) for each, old in zip(models, before, strict=True)]
        slow = [
            (each.model, score)
            for each, score in zip(models, scores, strict=True)
            if is_slow(each.model) or len(score.tokens) * each.seconds_per_token > MAX_SECONDS
        ]
        for each, score in zip(models, scores, strict=True):
            if (each.model, score) not in slow:
                list(score.read(each.model))
        self._show_line()

        def read(cancelled: Cancellation) -> Iterator[int]:
            if any(is_slow(model) for model, _ in slow):
                cancelled.wait(PAUSE)
            for model, score in slow:
                yield from score.read(model, cancelled)

        self.work.cancel()
        if slow:
            self.work.start(read)

    def receive(self, items: list[Any]) -> None:
        self._show_line()

    @on(Slider.Changed)
    def _show_line(self) -> None:
        if self.data is None or not self._scores:
            return
        models, all_scores, num_held_out = self.data.models, self._scores, self.data.num_held_out
        scores, line = all_scores[self.query_one(Slider).index], self.line.input
        num_characters = len(marks_to_newlines(line.value[: line.cursor_position]))
        word = max(0, int(np.searchsorted(scores.tokens.word_spans[0], max(1, num_characters))) - 1)
        self.query_one("#words", Drawing).show(lambda width, _: self._paint_words(scores, word, width))
        self.query_one("#word", Drawing).show(lambda width, _: describe_word(scores, word, width))
        self.query_one("#table", Drawing).show(lambda width, _: model_table(models, all_scores, num_held_out, width))
        score = scores.word_score(word)
        if self._has_moved and score is not None and score.bits < CERTAIN_BITS:
            self.finish_part(0)
        if self.line.is_edited and models[1].name == "5-gram" and scores.tokens.num_words >= MIN_LINE_WORDS:
            counted, network = (float(np.mean(each.bits)) for each in all_scores[1:3])
            if counted < network:
                self.finish_part(1)

    # Painting

    def _paint_words(self, scores: TokenScores, cursor: int, width: int) -> Content:
        """Return the words in rows, each above its bits; a text that does not fit starts near the cursor."""
        rows: list[list[tuple[str, str, str]]] = [[]]
        self._cells, x = [], 0
        bits = scores.word_bits.tolist()
        for index, is_unknown in enumerate(scores.tokens.unknown_words.tolist()):
            written = scores.tokens.word(index)
            name = LINE_END_MARK if written.endswith("\n") else visible_part(written)
            name = truncate(f"‹{name}›" if is_unknown else name, max(1, width))
            number = "·" if math.isnan(bits[index]) else f"{bits[index]:.1f}"
            cell_width = max(cell_len(name), len(number))
            if x and x + cell_width > width:
                rows.append([])
                x = 0
            style = next((style for least, style in SHADES if bits[index] < least), MUTED)
            rows[-1].append((name, number, "reverse bold" if index == cursor else style))
            self._cells.append((len(rows) - 1, x, x + cell_width))
            x += cell_width + GAP
        here = self._cells[cursor][0] if self._cells else 0
        self._first_row = max(0, here - 2)
        lines: list[Content] = []
        for row in rows[self._first_row : self._first_row + 4]:
            for part in (0, 1):
                cells = [
                    Content.styled(each[part], MUTED if part else each[2]).pad_right(
                        max(cell_len(each[0]), len(each[1])) - cell_len(each[part]) + GAP
                    )
                    for each in row
                ]
                lines.append(Content("").join(cells))
        return Content("\n").join(lines)

    @on(Drawing.Clicked, "#words")
    def _select_word(self, event: Drawing.Clicked) -> None:
        for index, (row, start, end) in enumerate(self._cells):
            if row == self._first_row + event.y // 2 and start <= event.x < end + GAP:
                # The characters of the line up to the word are those of the text, but for the marks of line ends.
                self.line.input.cursor_position = int(
                    self._scores[self.query_one(Slider).index].tokens.word_spans[1][index]
                )


def describe_word(scores: TokenScores, word: int, width: int) -> Content:
    """Return the bits of a word, and the words that the model expected there."""
    score = scores.word_score(word)
    written = scores.tokens.word(word) if scores.tokens.num_words else ""
    if score is None:
        return Content.styled("not scored yet" if written.strip() else "type a line", MUTED)
    name = LINE_END_MARK if written.endswith("\n") else truncate(visible_part(written), NAME_WIDTH)
    unknown = f", read as {UNK}" if scores.tokens.unknown_words[word] else ""
    parts = [(name, "bold"), (f"  {score.bits:.1f} bits", "")]
    parts.append((f" = -log2 of {format_percent(score.model_prob)}{unknown}   expected ", MUTED))
    expected = [(each if each == UNK else format_lone_token(each), prob) for each, prob in score.top_tokens]
    names = ", ".join(f"{each} {format_percent(prob)}" for each, prob in expected[:NUM_EXPECTED])
    return Content.assemble(*parts, truncate(names, max(8, width - sum(cell_len(text) for text, _ in parts))))


def model_table(models: tuple[ScoringModel, ...], scores: list[TokenScores], num_held_out: int, width: int) -> Content:
    """Return mean bits and perplexity of the line, and the perplexity of the held-out text, by each model."""
    held_out_width = 24 if width >= 71 else 10
    headings = "bits of a word", "perplexity", f"{num_held_out:,} held-out words" if width >= 71 else "held-out"
    widths = 21, 11, held_out_width
    cells = "".join(heading.rjust(cell_width) for heading, cell_width in zip(headings, widths, strict=True))
    lines = [Content.styled(f"{'':{NAME_WIDTH}}{cells}", MUTED)]
    most = max(each.bits or 0.0 for each in models)
    for model, score in zip(models, scores, strict=True):
        sums, line, held_out, drawn = MISSING, MISSING, MISSING, ""
        if len(score.tokens):
            mean = float(np.mean(score.bits))
            line = format_perplexity(perplexity(mean * math.log(2)))
            sums = f"{score.bits.sum():.1f} ÷ {len(score.tokens)} = {mean:.2f}"
        if model.bits is not None:
            held_out, drawn = format_perplexity(2**model.bits), bar(model.bits / most, max(0, min(30, width - 75)))
        lines.append(
            Content.assemble(
                fit_cells(model.name, NAME_WIDTH), f"{sums:>21}", (f"{line:>11}", "bold $accent"),
                (f"{held_out:>{held_out_width}}", "bold"), (f"  {drawn}" if drawn else "", "$accent"),
            )
        )  # fmt: skip
    return Content("\n").join(lines)
