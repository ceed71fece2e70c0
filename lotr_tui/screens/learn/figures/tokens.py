"""Figure of the first chapter: a line as words, characters and byte pairs, and the cut-off of the vocabulary."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import cast

from textual import on
from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Input, Static

from engine.analysis.notebook import VocabularyCutoffs
from engine.data.tokenizers.base import EOS, UNK, Tokenizer
from engine.data.tokenizers.bytes import CharacterTokenizer
from engine.data.tokenizers.words import WordTokenizer, WordTokenizerName
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import Debounce
from lotr_tui.formatting import format_lone_token, plural
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figure import REST_SECONDS, ChapterFigure
from lotr_tui.screens.learn.line_bar import LineBar
from lotr_tui.theme import MUTED
from lotr_tui.widgets.slider import Slider

EXAMPLE = "Where is the Ring, Glorfindel?"
CUTOFFS: tuple[int, ...] = (*range(1, 41), 50, 60, 80, 100, 150, 200, 300, 500, 1000, 10_000)
FIRST_CUTOFF = 3
"""Cut-off that trainings use."""
UNKNOWN_GOAL = 0.1
MAX_LINES = 100_000
"""Lines of the training text, and of the held-out text, that are counted."""
BPE_VOCABULARY_SIZE = 2048
NUM_SPECIAL_WORDS = 2
"""Tokens of a vocabulary of words that are no words: `<unk>` and `<eos>`."""
MIN_HEIGHT_WITH_GAPS = 18
"""Minimum height of the figure for empty lines between its rows."""


@dataclass(frozen=True)
class Tokenizers:
    """Tokenizers of one corpus."""

    cutoffs: VocabularyCutoffs
    open: tuple[tuple[str, Tokenizer], ...]
    """Names and tokenizers of the open vocabularies."""


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
        self._judging = Debounce(self, REST_SECONDS, self._judge_cutoff)
        """Wait until the slider rests."""

    def compose_figure(self) -> ComposeResult:
        """Yield the line, the cut-off, the fraction of unknown words, and the tokens of the line."""
        yield LineBar(EXAMPLE)
        yield Slider(
            "cut-off",
            [f"{cutoff:,}" for cutoff in CUTOFFS],
            CUTOFFS.index(FIRST_CUTOFF),
            help_line="How often a word must occur to be known; ← → change it",
            id="cutoff",
        )
        yield Static(id="unknown", markup=False)
        with VerticalScroll(id="rows", can_focus=False):
            yield Static(id="tokens", markup=False)

    def load(self, cancelled: Cancellation) -> Generator[str, None, Tokenizers]:
        """Count the words of the corpus, and learn its characters and byte pairs."""
        dataset = yield from self.material.words()
        yield f"learning the byte pairs of {self.material.corpus_name} …"
        train = [line.text for line in islice(dataset.splits.train, MAX_LINES)]
        held_out = [line.text for line in islice(dataset.splits.valid, MAX_LINES)]
        from engine.data.tokenizers.bpe import BPETokenizer  # loads Hugging Face's tokenizers

        name = cast(WordTokenizerName, self.material.data.tokenizer)  # the class reads corpora as words
        own = self.material.session_model
        pairs: list[tuple[str, Tokenizer]] = [
            ("byte pairs", BPETokenizer.train(train, BPE_VOCABULARY_SIZE)),
            ("characters", CharacterTokenizer.from_lines(train, FIRST_CUTOFF)),
        ]
        if own is not None and own.model.tokenizer.is_open:
            pairs.insert(0, (own.name, own.model.tokenizer))
        return Tokenizers(VocabularyCutoffs(train, held_out, name), tuple(pairs))

    def show_data(self, data: Tokenizers) -> None:
        """Show the example line."""
        self._show_cutoff(data)

    @property
    def _cutoff(self) -> int:
        return CUTOFFS[self.query_one(Slider).index]

    @on(Slider.Changed)
    def _change_cutoff(self) -> None:
        if self.data is not None:
            self._show_cutoff(self.data)
            self._judging.request()

    def _show_cutoff(self, data: Tokenizers) -> None:
        """Show the vocabulary of the chosen cut-off, and the line in its words."""
        cutoffs, cutoff = data.cutoffs, self._cutoff
        self._words = cutoffs.tokenizer(cutoff)
        rate = cutoffs.unknown_rate(cutoff)
        self.query_one("#unknown", Static).update(
            Content.assemble(
                (f"{cutoffs.vocabulary_size(cutoff):,}", "bold"),
                (" words · ", MUTED),
                (f"{100 * rate:.1f} %", "bold"),  # the task compares it with 10 %
                (f" of {cutoffs.num_held_out_words:,} held-out words unknown", MUTED),
            )
        )
        self._update_tokens()

    def _judge_cutoff(self) -> None:
        if self.data is not None:
            rate = self.data.cutoffs.unknown_rate
            if self._cutoff == next((cutoff for cutoff in CUTOFFS if rate(cutoff) > UNKNOWN_GOAL), None):
                self.finish_part(1)

    def on_resize(self) -> None:
        """Leave out the empty lines where they do not fit."""
        self.set_class(self.size.height >= MIN_HEIGHT_WITH_GAPS, "-roomy")
        self._update_tokens()

    @on(Input.Changed)
    def _update_tokens(self) -> None:
        """Tokenize the line."""
        if self.data is None or self._words is None:
            return
        line = self.query_one(LineBar)
        rows = [("words", self._words), *self.data.open]
        gap = "\n\n" if self.size.height >= MIN_HEIGHT_WITH_GAPS else "\n"
        self.query_one("#tokens", Static).update(
            Content(gap).join(describe_tokens(name, tokenizer, line.text) for name, tokenizer in rows)
        )
        if line.is_edited and any(span.text for span in self._words.unknown_spans(line.text)):
            self.finish_part(0)


def describe_tokens(name: str, tokenizer: Tokenizer, text: str) -> Content:
    """Return a heading, and below it the tokens of a text, each with its id."""
    spans = tokenizer.spans(text)
    size = plural(len(spans), "token")
    vocabulary = f"{len(tokenizer):,}"
    if isinstance(tokenizer, WordTokenizer):
        vocabulary = f"{len(tokenizer) - NUM_SPECIAL_WORDS:,} + {UNK}, {EOS}"
    heading = Content.assemble((name, "bold"), (f"  {size} · vocabulary of {vocabulary}", MUTED))
    tokens: Sequence[Content] = [
        Content.assemble(
            (_token_text(tokenizer, span.id, text[span.start : span.end]), "$accent" if index % 2 else ""),
            (f"\u00a0{span.id}", MUTED),
        )
        for index, span in enumerate(spans)
    ]
    return Content.assemble(heading, "\n", Content("  ").join(tokens))


def _token_text(tokenizer: Tokenizer, id: int, written: str) -> str:
    """Return a token as it is displayed: `‹glorfindel›→<unk>` for an unknown word, `·is` for one after a space."""
    if id == tokenizer.unk_id:
        return f"{written}→{UNK}"
    return format_lone_token(tokenizer.tokens[id])
