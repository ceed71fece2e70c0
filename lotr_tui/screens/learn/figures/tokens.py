"""Figure of the first chapter: a line as words, byte pairs and characters, and the cut-off of the vocabulary."""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import cast

from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from engine.analysis.tokenized_text import VocabularyCutoffs
from engine.data.tokenizers import EOS, UNK, CharacterTokenizer, Tokenizer, WordTokenizer, WordTokenizerName
from engine.runtime.process import Cancellation
from lotr_tui.background_task import Debounce
from lotr_tui.formatting import format_lone_token, plural
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figure import REST_SECONDS, ChapterFigure, LineBar
from lotr_tui.theme import MUTED
from lotr_tui.widgets.slider import Slider

EXAMPLE = "Where is the Ring, Glorfindel?"
CUTOFFS: tuple[int, ...] = (*range(1, 41), 50, 60, 80, 100, 150, 200, 300, 500, 1000, 10_000)
FIRST_CUTOFF = 3  # the one that trainings use
UNKNOWN_GOAL = 0.1
MAX_LINES = 100_000  # of the training text, and of the held-out text, that are counted
BPE_VOCABULARY_SIZE = 2048
NUM_SHOWN_MERGES = 7
MIN_HEIGHT_WITH_GAPS = 18


@dataclass(frozen=True)
class Tokenizers:
    """Tokenizers of one corpus: words by cut-off, open vocabularies by name, and the first merges of byte pairs."""

    cutoffs: VocabularyCutoffs
    open: tuple[tuple[str, Tokenizer], ...]
    merges: tuple[tuple[str, str], ...]


class TokensFigure(ChapterFigure[Tokenizers]):
    """A typed line as tokens with their ids, and the fraction of unknown words by cut-off."""

    DEFAULT_CSS = """
    TokensFigure #rows { height: 1fr; scrollbar-size-vertical: 1; }
    TokensFigure #rows Static { padding: 0 1; margin-bottom: 1; }
    TokensFigure Slider { margin: 0 1; }
    TokensFigure #unknown { height: 1; padding: 0 1; margin-bottom: 1; }
    TokensFigure.-roomy Slider { margin: 1 1 0 1; }
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._words: WordTokenizer | None = None
        self._judging = Debounce(self, REST_SECONDS, self._judge)

    def compose_figure(self) -> ComposeResult:
        yield LineBar(EXAMPLE)
        help_line = "How often a word must occur to be known; ← → change it"
        texts = [f"{cutoff:,}" for cutoff in CUTOFFS]
        yield Slider("cut-off", texts, CUTOFFS.index(FIRST_CUTOFF), help_line=help_line, id="cutoff")
        yield Static(id="unknown", markup=False)
        with VerticalScroll(id="rows", can_focus=False):
            yield Static(id="tokens", markup=False)

    def load(self, cancelled: Cancellation) -> Generator[str, None, Tokenizers]:
        dataset = yield from self.material.words()
        yield f"learning the byte pairs of {self.material.corpus_name} …"
        train = [line.text for line in islice(dataset.splits.train, MAX_LINES)]
        held_out = [line.text for line in islice(dataset.splits.valid, MAX_LINES)]
        from engine.data.tokenizers import BPETokenizer

        name = cast(WordTokenizerName, self.material.data.tokenizer)  # the class reads corpora as words
        bpe, own = BPETokenizer.train(train, BPE_VOCABULARY_SIZE), self.material.session_model
        tokenizers: list[tuple[str, Tokenizer]] = [
            ("byte pairs", bpe),
            ("characters", CharacterTokenizer.from_lines(train, FIRST_CUTOFF)),
        ]
        if own is not None and own.model.tokenizer.is_open:
            tokenizers.insert(0, (own.name, own.model.tokenizer))
        return Tokenizers(VocabularyCutoffs(train, held_out, name), tuple(tokenizers), bpe.merges)

    def show_data(self, data: Tokenizers) -> None:
        self._show_cutoff()

    @property
    def _cutoff(self) -> int:
        return CUTOFFS[self.query_one(Slider).index]

    @on(Slider.Changed)
    def _show_cutoff(self) -> None:
        if self.data is None:
            return
        cutoffs, cutoff = self.data.cutoffs, self._cutoff
        self._words = cutoffs.tokenizer(cutoff)
        self.query_one("#unknown", Static).update(
            Content.assemble(
                (f"{cutoffs.vocabulary_size(cutoff):,}", "bold"),
                (" words · ", MUTED),
                (f"{100 * cutoffs.unknown_rate(cutoff):.1f} %", "bold"),  # the task compares it with 10 %
                (f" of {cutoffs.num_held_out_words:,} held-out words unknown", MUTED),
            )
        )
        self._show_tokens()

    def _judge(self) -> None:
        """Check the task once line and cut-off rest: a word that is half typed is no answer."""
        if self.data is not None and self._words is not None:
            unknown, before = (
                {text[span.start : span.end] for span in self._words.unknown_spans(text) if span.text}
                for text in (self.line.text, self.line.example)
            )
            if unknown - before:
                self.finish_part(0)
            rate = self.data.cutoffs.unknown_rate
            if self._cutoff == next((cutoff for cutoff in CUTOFFS if rate(cutoff) > UNKNOWN_GOAL), None):
                self.finish_part(1)

    def on_resize(self) -> None:
        self.set_class(self.size.height >= MIN_HEIGHT_WITH_GAPS, "-roomy")
        self._show_tokens()

    @on(Input.Changed)
    def _show_tokens(self) -> None:
        if self.data is None or self._words is None:
            return
        text = self.line.text
        rows = [describe_tokens(name, each, text) for name, each in (("words", self._words), *self.data.open)]
        rows.insert(-1, describe_merges(self.data.merges, text))
        gap = "\n\n" if self.has_class("-roomy") else "\n"
        self.query_one("#tokens", Static).update(Content(gap).join(rows))
        self._judging.request()


def describe_tokens(name: str, tokenizer: Tokenizer, text: str) -> Content:
    """Return a heading, and below it the tokens of a text, each with its id."""
    spans = tokenizer.spans(text)
    is_words = isinstance(tokenizer, WordTokenizer)
    vocabulary = f"{len(tokenizer) - 2:,} + {UNK}, {EOS}" if is_words else f"{len(tokenizer):,}"
    parts: list[tuple[str, str]] = []
    for index, span in enumerate(spans):
        is_unknown = span.id == tokenizer.unk_id  # `glorfindel→<unk>`; `·is` for a token after a space
        written = f"{text[span.start : span.end]}→{UNK}" if is_unknown else format_lone_token(tokenizer.tokens[span.id])
        parts += [(written, "$accent" if index % 2 else ""), (f"\u00a0{span.id}", MUTED), ("  ", "")]
    heading = f"  {plural(len(spans), 'token')} · vocabulary of {vocabulary}\n"
    return Content.assemble((name, "bold"), (heading, MUTED), *parts[:-1])


def describe_merges(merges: tuple[tuple[str, str], ...], text: str) -> Content:
    """Return which neighbours are merged into one token: the first pairs of all, and those of the last word of a text.

    The merges are in the order in which they were learned, which is the one in which they are applied.
    """
    shown = [f"{left} {right}" for left, right in merges[:NUM_SHOWN_MERGES]]
    word = next(reversed(text.split()), "")
    pieces = list(f"Ġ{word}") if word.isascii() else []
    steps: list[str] = []
    ranks = {pair: rank for rank, pair in enumerate(merges)}
    while pairs := [pair for pair in pairwise(pieces) if pair in ranks]:
        first = min(pairs, key=ranks.__getitem__)
        place = next(i for i in range(len(pieces) - 1) if (pieces[i], pieces[i + 1]) == first)
        pieces[place : place + 2] = ["".join(first)]
        steps.append(" ".join(first))
    parts = [("merged first  ", MUTED), (", ".join(shown), "")]
    if steps:
        parts += [(f"\nin “{word}”  ", MUTED), (", ".join(steps), "")]
    return Content.assemble(*((part.replace("Ġ", "·"), style) for part, style in parts))
