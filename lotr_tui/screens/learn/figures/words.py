"""Figures of a typed line in parts: tokens and their ids by tokenizer, and the bits of each word by model."""

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from itertools import islice, pairwise
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
from rich.cells import cell_len
from textual import events, on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from engine.analysis.evaluation import evaluate, perplexity
from engine.analysis.token_scores import TokenScores
from engine.analysis.tokenized_text import VocabularyCutoffs, tokenize_with_offsets
from engine.data import tokenizers
from engine.data.tokenizers import EOS, UNK, BPETokenizer, Tokenizer, WordTokenizer
from engine.errors import CorpusError
from engine.models.base import LanguageModel
from engine.models.ngram import Unigram
from engine.runtime.process import Cancellation
from lotr_tui import formatting
from lotr_tui.background_task import Debounce
from lotr_tui.formatting import MISSING, format_lone_token, format_percent, format_perplexity, truncate
from lotr_tui.learn.material import Material, find_example
from lotr_tui.screens.inspect.text_screen import marks_to_newlines
from lotr_tui.screens.inspect.text_view import visible_part
from lotr_tui.screens.learn.figure import REST_SECONDS, ChapterFigure, Drawing, LineBar
from lotr_tui.session.session_model import find_cast, is_slow
from lotr_tui.theme import MUTED
from lotr_tui.widgets.slider import Slider

TOKENS_EXAMPLE = "Where is the Ring, Glorfindel?"
CUTOFFS: tuple[int, ...] = (*range(1, 41), 50, 60, 80, 100, 150, 200, 300, 500, 1000, 10_000)
FIRST_CUTOFF = 3  # the one that trainings use
UNKNOWN_GOAL = 0.1
MAX_LINES = 100_000  # of the training text, and of the held-out text, that are counted
BPE_VOCABULARY_SIZE = 2048
NUM_SHOWN_MERGES = 7

PERPLEXITY_EXAMPLE = "What do you think of the Ring, Aragorn?"
CERTAIN_BITS, MIN_LINE_WORDS = 1.0, 5
MAX_HELD_OUT_TOKENS = 20_000
PAUSE = 0.3  # seconds without a key before a slow model scores the line
NAME_WIDTH, NUM_EXPECTED, GAP = 16, 5, 2
# Bits from which a word is usual, surprising and astonishing.
SHADES = ((3.0, "dim"), (6.0, ""), (10.0, "underline on $accent 20%"), (math.inf, "bold underline on $accent 50%"))


class Tokenizers(NamedTuple):
    """Tokenizers of one corpus: words by cut-off, open vocabularies by name, and the first merges of byte pairs."""

    cutoffs: VocabularyCutoffs
    open: tuple[tuple[str, Tokenizer], ...]
    merges: tuple[tuple[str, str], ...]


class TokensFigure(ChapterFigure[Tokenizers]):
    """A typed line as tokens with their ids, and the fraction of unknown words by cut-off."""

    DEFAULT_CSS = """
    TokensFigure #rows { height: 1fr; scrollbar-size-vertical: 1; }
    TokensFigure #tokens { margin-bottom: 1; }
    TokensFigure Slider { margin: 0 1; }
    TokensFigure #unknown { height: 1; padding: 0 1; margin-bottom: 1; }
    TokensFigure.-roomy Slider { margin: 1 1 0 1; }
    """
    LAYOUTS: ClassVar = {"-roomy": (0, 18)}

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._cutoff, self._has_moved = 0, False  # the one that is shown, and whether another one was
        self._words: WordTokenizer  # by the cut-off
        self._judging = Debounce(self, REST_SECONDS, self._judge)

    def compose_figure(self) -> ComposeResult:
        yield LineBar(TOKENS_EXAMPLE)
        help_line = "How often a word must occur to be known; ← → change it"
        texts = [f"{cutoff:,}" for cutoff in CUTOFFS]
        yield Slider("cut-off", texts, CUTOFFS.index(FIRST_CUTOFF), help_line=help_line, id="cutoff")
        yield Static(id="unknown", markup=False)
        with VerticalScroll(id="rows", can_focus=False):
            yield Drawing(id="tokens")

    def load(self, cancelled: Cancellation) -> Generator[str, None, Tokenizers]:
        dataset = yield from self.material.words()
        yield f"learning the byte pairs of {self.material.corpus_name} …"
        train, held_out = (
            [line.text for line in islice(lines, MAX_LINES)] for lines in (dataset.splits.train, dataset.splits.valid)
        )
        name = cast(tokenizers.WordTokenizerName, self.material.data.tokenizer)  # the class reads corpora as words
        bpe, own = BPETokenizer.train(train, BPE_VOCABULARY_SIZE), self.material.session_model
        characters = tokenizers.CharacterTokenizer.from_lines(train, FIRST_CUTOFF)
        known: list[tuple[str, Tokenizer]] = [("byte pairs", bpe), ("characters", characters)]
        if own is not None and own.model.tokenizer.is_open:
            known.insert(0, (own.name, own.model.tokenizer))
        return Tokenizers(VocabularyCutoffs(train, held_out, name), tuple(known), bpe.merges)

    def show_view(self) -> None:
        text, cutoffs, cutoff = self.line.text, self.data.cutoffs, CUTOFFS[self.query_one(Slider).index]
        if cutoff != self._cutoff:
            self._has_moved = self._cutoff > 0
            self._cutoff, self._words = cutoff, cutoffs.tokenizer(cutoff)
            self.query_one("#unknown", Static).update(
                Content.assemble(
                    (f"{cutoffs.vocabulary_size(cutoff):,}", "bold"),
                    (" words · ", MUTED),
                    (f"{100 * cutoffs.unknown_rate(cutoff):.1f} %", "bold"),  # the task compares it with 10 %
                    (f" of {cutoffs.num_held_out_words:,} held-out words unknown", MUTED),
                )
            )
        tokenizers, merges = (("words", self._words), *self.data.open), describe_merges(self.data.merges, text)
        gap = Content("\n\n" if self.has_class("-roomy") else "\n")

        def paint(width: int, _: int) -> Content:
            *rows, characters = (describe_tokens(name, each, text, width) for name, each in tokenizers)
            return gap.join([*rows, merges, characters])

        self.query_one("#tokens", Drawing).show(paint)
        self._judging.request()

    def _judge(self) -> None:
        """Check the task once line and cut-off rest: a word that is half typed is no answer."""
        unknown, before = (
            {text[span.start : span.end] for span in self._words.unknown_spans(text) if span.text}
            for text in (self.line.text, self.line.example)
        )
        if unknown - before:
            self.finish_part(0)
        rate = self.data.cutoffs.unknown_rate
        if self._has_moved and self._cutoff == next((each for each in CUTOFFS if rate(each) > UNKNOWN_GOAL), None):
            self.finish_part(1)


def describe_tokens(name: str, tokenizer: Tokenizer, text: str, width: int) -> Content:
    """Return the tokens of a text with their ids, in lines of `width` cells that break between two tokens."""
    spans = tokenizer.spans(text)
    is_words = isinstance(tokenizer, WordTokenizer)
    vocabulary = f"{len(tokenizer) - 2:,} + {UNK}, {EOS}" if is_words else f"{len(tokenizer):,}"
    parts, used = list[tuple[str, str]](), width
    for index, span in enumerate(spans):
        is_unknown = span.id == tokenizer.unk_id  # `glorfindel→<unk>`; `·is` for a token after a space
        written = f"{text[span.start : span.end]}→{UNK}" if is_unknown else format_lone_token(tokenizer.tokens[span.id])
        cells = cell_len(f"  {written} {span.id}")
        fits = used + cells <= width
        used = used + cells if fits else cells - 2
        parts += [("  " if fits else "\n", ""), (written, "$accent" if index % 2 else ""), (f" {span.id}", MUTED)]
    heading = f"  {formatting.plural(len(spans), 'token')} · vocabulary of {vocabulary}"
    return Content.assemble((name, "bold"), (heading, MUTED), *parts)


def describe_merges(merges: tuple[tuple[str, str], ...], text: str) -> Content:
    """Return which neighbours are merged into one token: the first pairs of all, and all pairs of a text's last word.

    The merges are in the order in which they were learned, which is the one in which they are applied.
    """
    word = next(reversed(text.split()), "")
    pieces = list(f"Ġ{word}") if word.isascii() else []
    steps: list[str] = []
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    while pairs := [pair for pair in pairwise(pieces) if pair in ranks]:
        first = min(pairs, key=ranks.__getitem__)
        place = list(pairwise(pieces)).index(first)
        pieces[place : place + 2] = ["".join(first)]
        steps.append(" ".join(first))
    shown = ", ".join(" ".join(pair) for pair in merges[:NUM_SHOWN_MERGES])
    parts = [("merged first  ", MUTED), (shown, "")]
    if steps:
        parts += [(f"\nin “{word}”  ", MUTED), (", ".join(steps), "")]
    return Content.assemble(*((part.replace("Ġ", "·"), style) for part, style in parts))


class ScoringModel(NamedTuple):
    """A model that scores lines, and its bits of a token on the held-out text, if it reads that."""

    name: str
    model: LanguageModel
    eos_per_line: bool = True
    bits: float | None = None

    def score(self, line: str, before: TokenScores | None = None) -> TokenScores:
        """Return the scores of a line, which are known where it starts like the line before."""
        tokenizer, cast = self.model.tokenizer, find_cast(self.model)
        tokens = tokenize_with_offsets(line, tokenizer, eos_per_line=self.eos_per_line, cast=cast)
        return TokenScores(tokens, tokenizer, before)


class PerplexityData(NamedTuple):
    models: tuple[ScoringModel, ...]
    num_held_out: int
    example: str
    note: str


class PerplexityFigure(ChapterFigure[PerplexityData]):
    """A line with the bits of each word by one model, and the perplexity of line and held-out text by all."""

    DEFAULT_CSS = """
    PerplexityFigure Slider { margin: 0 1; max-width: 48; }
    PerplexityFigure #words { height: auto; max-height: 8; }
    PerplexityFigure.-roomy #words { margin: 1 0; }
    PerplexityFigure.-roomy #table { margin-top: 1; }
    """
    LAYOUTS: ClassVar = {"-roomy": (0, 18)}

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._scores: list[TokenScores] = []  # of the line by each model
        self._cells: list[tuple[int, int, int]] = []  # row, first column and end of each word
        self._first_row = 0
        self._first_view: tuple[str, int] | None = None  # line and cursor before the student did something

    def compose_figure(self) -> ComposeResult:
        yield LineBar(PERPLEXITY_EXAMPLE, "Type; ctrl+← ctrl+→ choose a word")
        yield Slider("bits by", ["…"], help_line="Model whose bits the words show; ← → change it", id="model")
        yield Drawing(id="words")
        yield Drawing(id="word")
        yield Drawing(id="table")

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
        if own is not None:
            models.append(ScoringModel(own.name, own.model, own.predicts_eos))
        ids = dataset.valid[:MAX_HELD_OUT_TOKENS]
        for index, each in enumerate(models):
            if each.model.tokenizer == dataset.tokenizer:
                yield f"reading the held-out text of {self.material.corpus_name} with the {each.name} …"
                models[index] = each._replace(bits=evaluate(each.model, ids).bits_per_token)
            else:
                note = f"{truncate(each.name, 20)} reads other tokens, so no perplexity of it can be compared"

        def has_certain_word(line: str) -> bool:
            scores = network.score(line)
            list(scores.read(network.model, cancelled))
            return bool((scores.word_bits[1:] < CERTAIN_BITS).any())

        lines = (line.text for line in dataset.splits.valid)
        example = find_example(PERPLEXITY_EXAMPLE, lines, dataset.tokenizer, has_certain_word)
        data = PerplexityData(tuple(models), len(ids), example, note)
        self.material.results[PerplexityData] = data
        return data

    def set_up(self) -> None:
        self.show_note(self.data.note)
        names = [truncate(each.name, NAME_WIDTH) for each in self.data.models]
        self.query_one(Slider).set_values(names, len(names) - 1)
        self.line.set_example(self.data.example)
        if not self.line.is_edited:
            self._first_view = self.line.input.value, self.line.input.cursor_position

    def show_view(self) -> None:
        """Show the scores of the line; score a new line in a thread, which keeps the scores of the words before."""
        text, models = self.line.text, self.data.models
        if not self._scores or text != self._scores[0].tokens.text:
            before: Sequence[TokenScores | None] = self._scores or [None] * len(models)
            self._scores = [each.score(text, old) for each, old in zip(models, before, strict=True)]
            pairs = sorted(zip(models, self._scores, strict=True), key=lambda pair: is_slow(pair[0].model))

            def read(cancelled: Cancellation) -> Iterator[object]:
                for each, scores in pairs:
                    if is_slow(each.model):
                        yield None  # shows the words and the scores of the models before
                        cancelled.wait(PAUSE)
                        yield from scores.read(each.model, cancelled)
                    else:
                        list(scores.read(each.model, cancelled))
                yield None

            self.work.start(read)
        else:
            self.receive([])

    def receive(self, items: list[Any]) -> None:
        models, all_scores, num_held_out = self.data.models, self._scores, self.data.num_held_out
        scores, line = all_scores[self.query_one(Slider).index], self.line.input
        num_characters = len(marks_to_newlines(line.value[: line.cursor_position]))
        word = max(0, int(np.searchsorted(scores.tokens.word_spans[0], max(1, num_characters))) - 1)
        self.query_one("#words", Drawing).show(lambda width, _: self._paint_words(scores, word, width))
        self.query_one("#word", Drawing).show(lambda width, _: describe_word(scores, word, width))
        self.query_one("#table", Drawing).show(lambda width, _: model_table(models, all_scores, num_held_out, width))
        score, has_moved = scores.word_score(word), (line.value, line.cursor_position) != self._first_view
        if has_moved and score is not None and score.bits < CERTAIN_BITS:
            self.finish_part(0)
        if self.line.is_edited and models[1].name == "5-gram" and scores.tokens.num_words >= MIN_LINE_WORDS:
            counted, network = (float(np.mean(each.bits)) for each in all_scores[1:3])
            if counted < network:
                self.finish_part(1)

    def _paint_words(self, scores: TokenScores, cursor: int, width: int) -> Content:
        """Return the words in rows, each above its bits; a text that does not fit starts near the cursor."""
        rows: list[tuple[Content, Content]] = []
        self._cells, x = [], width
        bits = scores.word_bits.tolist()
        for index, is_unknown in enumerate(scores.tokens.unknown_words.tolist()):
            name = visible_part(scores.tokens.word(index))
            name = truncate(f"‹{name}›" if is_unknown else name, max(1, width))
            number = "·" if math.isnan(bits[index]) else f"{bits[index]:.1f}"
            cell_width = max(cell_len(name), len(number))
            if not rows or x + cell_width > width:
                rows.append((Content(""), Content("")))
                x = 0
            style = next((style for least, style in SHADES if bits[index] < least), MUTED)
            word = Content.styled(name, "reverse bold" if index == cursor else style)
            parts = zip(rows[-1], (word, Content.styled(number, MUTED)), strict=True)
            above, below = (line + part.pad_right(cell_width + GAP - part.cell_length) for line, part in parts)
            rows[-1] = above, below
            self._cells.append((len(rows) - 1, x, x + cell_width))
            x += cell_width + GAP
        self._first_row = max(0, (self._cells[cursor][0] if self._cells else 0) - 2)
        shown = rows[self._first_row : self._first_row + 4]
        return Content("\n").join(line for row in shown for line in row)

    @on(events.Click, "#words")
    def _select_word(self, event: events.Click) -> None:
        tokens = self._scores[self.query_one(Slider).index].tokens
        if (offset := event.get_content_offset(self.query_one("#words"))) is not None:
            for index, (row, start, end) in enumerate(self._cells):
                if row == self._first_row + offset.y // 2 and start <= offset.x < end + GAP:
                    # Line and text have the same characters up to the word, but for the marks of line ends.
                    self.line.input.cursor_position = int(tokens.word_spans[1][index])


def describe_word(scores: TokenScores, word: int, width: int) -> Content:
    score = scores.word_score(word)
    if score is None:
        has_word = scores.tokens.num_words and scores.tokens.word(word).strip()
        return Content.styled("not scored yet" if has_word else "type a line", MUTED)
    unknown = f", read as {UNK}" if scores.tokens.unknown_words[word] else ""
    parts = [(truncate(visible_part(scores.tokens.word(word)), NAME_WIDTH), "bold"), (f"  {score.bits:.1f} bits", "")]
    parts.append((f" = -log2 of {format_percent(score.model_prob)}{unknown}   expected ", MUTED))
    expected = [(each if each == UNK else format_lone_token(each), prob) for each, prob in score.top_tokens]
    names = ", ".join(f"{each} {format_percent(prob)}" for each, prob in expected[:NUM_EXPECTED])
    return Content.assemble(*parts, truncate(names, max(8, width - sum(cell_len(text) for text, _ in parts))))


def model_table(models: tuple[ScoringModel, ...], scores: list[TokenScores], num_held_out: int, width: int) -> Content:
    """Return mean bits and perplexity of the line, and the perplexity of the held-out text, by each model."""
    heading = f"{num_held_out:,} held-out words" if width >= 71 else "held-out"
    last = len(heading) + 2
    lines = [Content.styled(f"{'':{NAME_WIDTH}}{'bits of a word':>21}{'perplexity':>11}{heading:>{last}}", MUTED)]
    for model, score in zip(models, scores, strict=True):
        sums, line, held_out = MISSING, MISSING, format_perplexity(None if model.bits is None else 2**model.bits)
        if len(score.tokens):
            mean = float(np.mean(score.bits))
            line = format_perplexity(perplexity(mean * math.log(2)))
            sums = f"{score.bits.sum():.1f} ÷ {len(score.tokens)} = {mean:.2f}"
        name, line = formatting.fit_cells(model.name, NAME_WIDTH), f"{line:>11}"
        lines.append(Content.assemble(name, f"{sums:>21}", (line, "bold $accent"), (f"{held_out:>{last}}", "bold")))
    return Content("\n").join(lines)
