"""Next words by order after a typed line, the back-off of one word, and sampled text."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content
from textual.widgets import Input, Static

from engine.data.tokenizers.base import EOS_ID, UNK, UNK_ID, Tokenizer
from engine.generation.prompt import prefill
from engine.generation.settings import SamplerSettings
from engine.models.ngram import BackoffLevel, KneserNey
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.learn.continuation import continue_text
from lotr_tui.learn.example_line import START_WORDS, find_example
from lotr_tui.learn.line_place import LinePlace, find_place
from lotr_tui.learn.material import Material
from lotr_tui.learn.ngram_view import count_plainly, view_ngrams
from lotr_tui.screens.inspect.page import next_token_name
from lotr_tui.screens.learn.figure import ChapterFigure
from lotr_tui.screens.learn.figures.counting.backoff_table import BackoffTable, ExplainedWord, describe_counts
from lotr_tui.screens.learn.line_bar import LineBar
from lotr_tui.screens.learn.sample_rows import Sample, SampleRows
from lotr_tui.screens.learn.word_bars import WordBar, WordBars
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.slider import Slider

EXAMPLE = "What should I do? Bilbo, I am afraid of the"
ORDERS = (1, 2, 3, 4, 5)
ORDER_NAMES = ("1: unigram", "2: bigram", "3: trigram", "4: 4-gram", "5: 5-gram")
MAX_ORDER = ORDERS[-1]
LIKELY_GOAL = 0.5
SAMPLE_TOKENS = 24
MAX_BARS = 20
COUNTED_HEIGHT = 12
"""Rows from which the plain counts are shown."""
STACKED_HEIGHT = 15
"""Rows from which the table is above the bars, not beside them."""
BESIDE_WIDTH = 76
"""Columns from which the table and the bars fit beside each other."""
ALL_SAMPLES_HEIGHT = 21
"""Rows from which the samples of all orders are shown."""


@dataclass(frozen=True)
class CountModels:
    """Kneser-Ney models of the orders 1 to 5; the one of order 1 has discounted relative frequencies."""

    models: dict[int, KneserNey]
    example: str
    """Line that the figure starts with."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Words of the corpus."""
        return self.models[MAX_ORDER].tokenizer


class CountingFigure(ChapterFigure[CountModels]):
    """Next words after the words before the cursor, by order, and the back-off of the word on the cursor."""

    BINDING_GROUP_TITLE = "Counting"
    BINDINGS: ClassVar[list[BindingType]] = [
        *binding_table(
            "learn-counting",
            """
            higher | up   | step_order(1)  | higher order | Look at one word more
            lower  | down | step_order(-1) | lower order  | Look at one word less
            """,
        ),
        *binding_table(
            "learn-counting", "seed | f8 | next_seed | next seed | Sample other texts, with the next seed", show=True
        ),
    ]
    DEFAULT_CSS = f"""
    CountingFigure #order-row {{ height: 1; layout: horizontal; }}
    CountingFigure Slider {{ margin: 0 1; max-width: 48; }}
    CountingFigure #place {{ height: 1; width: 1fr; padding: 0 1; text-wrap: nowrap; text-overflow: ellipsis; }}
    CountingFigure #counted {{ display: none; height: 1; padding: 0 1; text-wrap: nowrap; }}
    CountingFigure.-counted #counted {{ display: block; }}
    CountingFigure #words {{ height: 1fr; layout: horizontal; }}
    CountingFigure BackoffTable {{ width: 55; max-width: 90; }}
    CountingFigure WordBars {{ max-width: 90; }}
    CountingFigure SampleRows {{ height: 1; }}
    CountingFigure.-narrow BackoffTable {{ width: 1fr; }}
    CountingFigure.-narrow WordBars {{ display: none; }}
    CountingFigure.-tall #words {{ layout: vertical; }}
    CountingFigure.-tall BackoffTable {{ width: 1fr; height: auto; min-height: 8; margin: 0; }}
    CountingFigure.-taller BackoffTable {{ margin: 1 0; }}
    CountingFigure.-taller #order-row {{ margin-top: 1; }}
    CountingFigure.-taller SampleRows {{ height: {len(ORDERS) + 1}; margin-top: 1; }}
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.seed = 0
        """Seed of the sampled texts; each order adds its number, so that the texts do not share their noise."""
        self._first_view: tuple[str, int, int] | None = None
        """Line, cursor and order before the student did something."""
        self._shown: tuple[LinePlace, int] | None = None
        """Place and order that the table shows."""
        self._counted: tuple[str, str, BackoffLevel] | None = None
        """Context, word and their plain counts."""
        self._likely_places: set[tuple[int, ...]] = set()
        """Words up to and with one that the highest order expects."""
        self._sampling: BackgroundTask[tuple[Sample, ...]] = BackgroundTask(
            self, "counting-samples", self._show_samples, self.show_failure, interval=0.01
        )

    # Setting up

    def compose_figure(self) -> ComposeResult:
        """Yield the line, the order, the counts, the next words, the back-off and the sampled texts."""
        yield CountingLine(EXAMPLE)
        with Container(id="order-row"):
            yield Slider("order", ORDER_NAMES, MAX_ORDER - 1, help_line="Words of an n-gram; ← → change it", id="order")
            yield Static(id="place", markup=False)
        yield Static(id="counted", markup=False)
        with Container(id="words"):
            yield BackoffTable(id="backoff")
            yield WordBars(id="bars")
        yield SampleRows(id="samples")

    def load(self, cancelled: Cancellation) -> Generator[str, None, CountModels]:
        """Count the n-grams of the corpus."""
        models = {}
        for order in ORDERS:
            models[order] = yield from self.material.counts(order)
        dataset = yield from self.material.words()
        lines = (line.text for line in dataset.splits.train)
        return CountModels(models, find_example(EXAMPLE, lines, dataset.tokenizer, start_words=START_WORDS))

    def show_data(self, data: CountModels) -> None:
        """Show the end of the example line."""
        self.query_one(LineBar).set_example(data.example)
        line = self._input
        line.cursor_position = len(line.value)
        self._first_view = self._view
        self.watch(line, "selection", self._update, init=False)
        self._update()

    @property
    def is_idle(self) -> bool:
        """True once the sampled texts are shown too."""
        return super().is_idle and not self._sampling.is_running

    def on_unmount(self) -> None:
        """Stop the threads."""
        self._sampling.cancel()

    def on_resize(self) -> None:
        """Lay the table beside or above the bars."""
        had_room = self.has_class("-taller")
        self.set_class(self.size.height >= COUNTED_HEIGHT, "-counted")
        is_tall = self.size.height >= STACKED_HEIGHT
        self.set_class(is_tall, "-tall")
        self.set_class(not is_tall and self.size.width < BESIDE_WIDTH, "-narrow")
        self.set_class(self.size.height >= ALL_SAMPLES_HEIGHT, "-taller")
        if had_room != self.has_class("-taller"):
            self._resample()
        self._show_counted()

    # What the controls say

    @property
    def _input(self) -> Input:
        return self.query_one(LineBar).input

    @property
    def order(self) -> int:
        """Order of the shown model."""
        return ORDERS[self.query_one(Slider).index]

    @property
    def _view(self) -> tuple[str, int, int]:
        return self._input.value, self._input.cursor_position, self.order

    def action_step_order(self, steps: int) -> None:
        """Change the order."""
        self.query_one(Slider).action_step(steps)

    def action_next_seed(self) -> None:
        """Sample other texts."""
        self.seed += len(ORDERS)
        self._resample()

    # The figure

    @on(Input.Changed)
    @on(Slider.Changed)
    def _update(self) -> None:
        """Show the next words and the back-off at the cursor."""
        if self.data is None:
            return
        place = find_place(self.data.tokenizer, self._input.value, self._input.cursor_position)
        if (place, self.order) == self._shown:
            return
        self._shown = place, self.order
        self._show_place(self.data, place)
        self._resample()

    def _show_place(self, data: CountModels, place: LinePlace) -> None:
        view, tokenizer = view_ngrams(data.models[self.order], place, MAX_BARS), data.tokenizer
        contexts = tuple(_context_words(tokenizer, level.context) for level in view.backoff.levels)
        word = next_token_name(tokenizer, view.token)
        self.query_one(BackoffTable).show(ExplainedWord(word, contexts, view.backoff, self.order))
        counted = count_plainly(data.models, view.backoff, view.token)
        self._counted = _context_words(tokenizer, counted.context), word, counted
        self._show_counted()
        bars = [
            WordBar(next_token_name(tokenizer, id), prob, is_marked=id == view.token) for id, prob in view.likeliest
        ]
        last = WordBar(word, view.prob, is_marked=True, note=f"#{view.rank:,}")
        self.query_one(WordBars).show("next word", ("prob",), bars, last)
        self.query_one("#place", Static).update(_describe_place(place, word))
        if self._view != self._first_view:
            self._check_task(data, place, view.token, view.backoff.prob)

    def _show_counted(self) -> None:
        if self._counted is not None:
            self.query_one("#counted", Static).update(describe_counts(*self._counted, self.size.width - 2))

    def _check_task(self, data: CountModels, place: LinePlace, token: int, prob: float) -> None:
        ngram = (*place.ids, token)
        if self.order == MAX_ORDER and prob > LIKELY_GOAL and token != UNK_ID:
            self._likely_places.add(ngram)
            self.finish_part(0)
        if self.order == 1 and ngram in self._likely_places:
            self.finish_part(1)
        if self.order == MAX_ORDER and len(place.ids) >= 2:
            trigram = data.models[3].explain_backoff(place.ids[-2:], token)
            if not trigram.levels[0].context_count:
                self.finish_part(2)

    # Sampled texts

    def _resample(self) -> None:
        """Sample the texts of the orders that there is room for, in a thread."""
        if self.data is None or self._shown is None:
            return
        data, ids, order, seed = self.data, self._shown[0].ids, self.order, self.seed
        orders = ORDERS if self.has_class("-taller") else (order,)

        def sample(cancelled: Cancellation) -> Iterator[tuple[Sample, ...]]:
            samples = []
            settings = SamplerSettings(temperature=1.0, max_tokens=SAMPLE_TOKENS)
            for each in orders:
                model = data.models[each]
                text = continue_text(model, prefill(model, ids), ids, settings, seed + each, cancelled)
                samples.append(Sample(f"order {each}, seed {seed + each}", f"… {text}", each == order))
            yield tuple(samples)

        self._sampling.start(sample)

    def _show_samples(self, items: list[tuple[Sample, ...]]) -> None:
        heading = "sampled after the words before the cursor (f8: next seeds)"
        self.query_one(SampleRows).show(heading, items[-1])


class CountingLine(LineBar):
    """Line whose words are explained."""

    HELP_LINE = "Type; ← → choose a word, ↑ ↓ the order; f8 samples again"


def _context_words(tokenizer: Tokenizer, context: tuple[int, ...]) -> str:
    """Return the words of a context, with "start" for the start of the line."""
    return " ".join("start" if id == EOS_ID else tokenizer.tokens[id] for id in context)


def _describe_place(place: LinePlace, word: str) -> Content:
    """Return which word the figure is about; at the end of the line, that is `word`."""
    if place.token is None:
        return Content.assemble(("end of the line, likeliest: ", MUTED), (word, "bold $accent"))
    written = f"{place.written}→{UNK}" if place.token == UNK_ID else place.written
    return Content.assemble(("word at the cursor: ", MUTED), (written, "bold $accent"))
