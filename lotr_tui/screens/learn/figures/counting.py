"""Figure of the chapter on counts: next words by order after a typed line, the back-off of one word, sampled text."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from rich.cells import cell_len, set_cell_size
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container
from textual.content import Content

from engine.data.tokenizers import EOS_ID, UNK, UNK_ID, Tokenizer
from engine.generation.generate import prefill
from engine.generation.settings import SamplerSettings
from engine.models.ngram import BackoffLevel, KneserNey
from engine.runtime.process import Cancellation
from lotr_tui.formatting import MISSING, format_percent, truncate
from lotr_tui.learn.lines import continue_text, find_example
from lotr_tui.learn.material import Material
from lotr_tui.screens.inspect.page import next_token_name
from lotr_tui.screens.learn.figure import ChapterFigure, Drawing, LineBar
from lotr_tui.screens.learn.rows import Sample, WordBar, sample_rows, word_bars
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.slider import Slider

EXAMPLE = "What should I do? Bilbo, I am afraid of the"
ORDERS = (1, 2, 3, 4, 5)
ORDER_NAMES = ("1: unigram", "2: bigram", "3: trigram", "4: 4-gram", "5: 5-gram")
LIKELY_GOAL = 0.5
SAMPLE_TOKENS, MAX_BARS = 24, 20
# Rows from which the plain counts are shown, the table is above the bars, and all orders have samples.
COUNTED_HEIGHT, STACKED_HEIGHT, ALL_SAMPLES_HEIGHT = 12, 15, 21
BESIDE_WIDTH = 76  # columns from which the table and the bars fit beside each other
COUNT_WIDTH, OWN_WIDTH, REST_WIDTH, ADDS_WIDTH = 8, 8, 6, 8
NUM_ROWS = 8  # headings, the contexts of a 5-gram, the uniform distribution and the sum
LEGEND = "× times  ‹ different words before"


@dataclass(frozen=True)
class CountModels:
    """Kneser-Ney models by their order, and the line that the figure starts with."""

    models: dict[int, KneserNey]
    example: str


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
        *binding_table("learn-counting", "again | r,ctrl+r | again | again | Sample other texts | r", show=True),
    ]
    DEFAULT_CSS = f"""
    CountingFigure #order-row {{ height: 1; layout: horizontal; }}
    CountingFigure Slider {{ margin: 0 1; max-width: 48; }}
    CountingFigure #place {{ width: 1fr; }}
    CountingFigure #counted {{ display: none; }}
    CountingFigure.-counted #counted {{ display: block; }}
    CountingFigure #words {{ height: 1fr; layout: horizontal; }}
    CountingFigure #backoff {{ width: 55; max-width: 90; }}
    CountingFigure #bars {{ height: 1fr; width: 1fr; max-width: 90; }}
    CountingFigure #samples {{ height: 1; }}
    CountingFigure.-narrow #backoff {{ width: 1fr; }}
    CountingFigure.-narrow #bars {{ display: none; }}
    CountingFigure.-tall #words {{ layout: vertical; }}
    CountingFigure.-tall #backoff {{ width: 1fr; }}
    CountingFigure.-taller #backoff {{ margin: 1 0; }}
    CountingFigure.-taller #order-row {{ margin-top: 1; }}
    CountingFigure.-taller #samples {{ height: {len(ORDERS) + 1}; margin-top: 1; }}
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.seed = 0  # each order adds its number, so that the texts do not share their noise
        self._first_view: tuple[str, int, int] | None = None  # before the student did something
        self._shown: tuple[tuple[int, ...], int | None, int] | None = None  # words before, the word there, order
        self._likely_places: set[tuple[int, ...]] = set()  # words up to and with one that the highest order expects

    def compose_figure(self) -> ComposeResult:
        yield LineBar(EXAMPLE, "Type; ctrl+← ctrl+→ choose a word, ↑ ↓ the order; ctrl+r samples again")
        with Container(id="order-row"):
            yield Slider(
                "order", ORDER_NAMES, len(ORDERS) - 1, help_line="Words of an n-gram; ← → change it", id="order"
            )
            yield Drawing("place")
        yield Drawing("counted")
        with Container(id="words"):
            yield Drawing("backoff", "own + rest × the probability in the row below; adds: own × the rests above")
            yield Drawing("bars", "Most likely next words; ▸ marks the word at the cursor")
        yield Drawing("samples", "Texts sampled with the seed that is shown; ¶ is the end of a line")

    def load(self, cancelled: Cancellation) -> Generator[str, None, CountModels]:
        models = {}
        for order in ORDERS:
            models[order] = yield from self.material.counts(order)
        dataset = yield from self.material.words()
        lines = (line.text for line in dataset.splits.train)
        return CountModels(models, find_example(EXAMPLE, lines, dataset.tokenizer, start_words=5))

    def show_data(self, data: CountModels) -> None:
        self.line.set_example(data.example)
        self._first_view = None if self.line.is_edited else self._view
        self.follow_cursor(self._update)

    def on_resize(self) -> None:
        height, had_room = self.size.height, self.has_class("-taller")
        self.set_class(height >= COUNTED_HEIGHT, "-counted")
        self.set_class(height >= STACKED_HEIGHT, "-tall")
        self.set_class(height < STACKED_HEIGHT and self.size.width < BESIDE_WIDTH, "-narrow")
        self.set_class(height >= ALL_SAMPLES_HEIGHT, "-taller")
        if had_room != self.has_class("-taller"):
            self._sample()

    @property
    def order(self) -> int:
        """Order of the shown model."""
        return ORDERS[self.query_one(Slider).index]

    @property
    def _view(self) -> tuple[str, int, int]:
        return self.line.input.value, self.line.input.cursor_position, self.order

    def action_step_order(self, steps: int) -> None:
        self.query_one(Slider).action_step(steps)

    def action_again(self) -> None:
        self.seed += len(ORDERS)
        self._sample()

    @on(Slider.Changed)
    def _update(self) -> None:
        """Show the next words and the back-off at the cursor: at the word on it, or else at the next word."""
        if self.data is None:
            return
        models, line, order = self.data.models, self.line.input, self.order
        tokenizer = models[order].tokenizer
        spans = tokenizer.spans(line.value)
        index = sum(span.end <= line.cursor_position for span in spans)
        ids, at = tuple(span.id for span in spans[:index]), spans[index] if index < len(spans) else None
        shown = ids, None if at is None else at.id, order
        if shown == self._shown:
            return
        self._shown = shown
        log_probs, state, *_ = prefill(models[order], ids)
        probs = np.exp(log_probs.astype(np.float64))
        likeliest = np.argsort(-probs, kind="stable")[:MAX_BARS].tolist()
        token = likeliest[0] if at is None else at.id
        levels, word = models[order].explain_backoff(state, token), next_token_name(tokenizer, token)
        contexts = [_words(tokenizer, level.context) for level in levels[:-1]]
        self.query_one("#backoff", Drawing).show(lambda width, _: backoff_table(word, contexts, levels, order, width))
        plain = [models[len(each.context) + 1].explain_backoff(each.context, token)[0] for each in levels[:-1]]
        counted = next(
            (level for level in plain if level.context_count), plain[-1]
        )  # the longest context that was seen
        context = _words(tokenizer, counted.context)
        counts = counted.context_count, counted.count
        self.query_one("#counted", Drawing).show(lambda width, _: describe_counts(context, word, *counts, width))
        bars = [WordBar(next_token_name(tokenizer, id), float(probs[id]), is_marked=id == token) for id in likeliest]
        rank = int((probs > probs[token]).sum()) + 1
        last = WordBar(word, float(probs[token]), is_marked=True, note=f"#{rank:,}")
        self.query_one("#bars", Drawing).show(
            lambda width, height: word_bars("next word", ("prob",), bars, width, height, last=last)
        )
        place, name = "end of the line, likeliest: ", word
        if at is not None:
            written = line.value[at.start : at.end]
            place, name = "word at the cursor: ", f"{written}→{UNK}" if at.id == UNK_ID else written
        self.query_one("#place", Drawing).show(lambda *_: Content.assemble((place, MUTED), (name, "bold $accent")))
        if self._view != self._first_view:
            self._check_task(ids, token, sum(level.part for level in levels))
        self._sample()

    def _check_task(self, ids: tuple[int, ...], token: int, prob: float) -> None:
        assert self.data is not None
        if self.order == ORDERS[-1] and prob > LIKELY_GOAL and token != UNK_ID:
            self._likely_places.add((*ids, token))
            self.finish_part(0)
        if self.order == 1 and (*ids, token) in self._likely_places:
            self.finish_part(1)
        if self.order == ORDERS[-1] and len(ids) >= 2:
            trigram = self.data.models[3].explain_backoff(ids[-2:], token)[0]
            if not trigram.context_count:
                self.finish_part(2)

    def _sample(self) -> None:
        if self.data is None or self._shown is None:
            return
        models, (ids, _, order), seed = self.data.models, self._shown, self.seed
        orders = ORDERS if self.has_class("-taller") else (order,)
        settings = SamplerSettings(temperature=1.0, max_tokens=SAMPLE_TOKENS)

        def sample(cancelled: Cancellation) -> Iterator[list[Sample]]:
            samples = []
            for each in orders:
                state = prefill(models[each], ids)
                text = continue_text(models[each], state, ids, settings, seed + each, cancelled)
                samples.append(Sample(f"order {each}, seed {seed + each}", f"… {text}", each == order))
            yield samples

        self.work.start(sample)

    def receive(self, items: list[Any]) -> None:
        heading = "sampled after the words before the cursor (r: again, with other seeds)"
        self.query_one("#samples", Drawing).show(lambda *size: sample_rows(heading, items[-1], *size))


def _words(tokenizer: Tokenizer, context: tuple[int, ...]) -> str:
    return " ".join("start" if id == EOS_ID else tokenizer.tokens[id] for id in context)


def backoff_table(word: str, contexts: list[str], levels: list[BackoffLevel], order: int, width: int) -> Content:
    """Return a row for each context of a word, the longest first, and its probability as their sum."""
    narrow = COUNT_WIDTH + OWN_WIDTH + REST_WIDTH + ADDS_WIDTH
    heading = truncate(f"+{word}", max(COUNT_WIDTH - 1, min(14, width - narrow - 20)))
    word_width = max(COUNT_WIDTH, cell_len(heading) + 1)
    context_width = max(6, width - narrow - word_width)

    def row(context: str, *cells: str, style: str = "") -> Content:
        widths = (COUNT_WIDTH, word_width, OWN_WIDTH, REST_WIDTH, ADDS_WIDTH)
        numbers = "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        return Content.styled(set_cell_size(_end_of(context, context_width - 1), context_width) + numbers, style)

    lines = [row("after", "seen", heading, "own", "rest", "adds", style=MUTED)]
    lines += [Content("")] * (NUM_ROWS - 3 - order)  # a row does not move with the order
    lines += [Content.styled("too near the start", MUTED)] * (order - len(contexts))
    for level, context in zip(levels[:-1], contexts, strict=True):
        mark, rest = "‹" if len(level.context) < order - 1 else "×", format_percent(level.backoff_weight)
        own, adds = format_percent(level.discounted_prob), format_percent(level.part)
        if not level.count:
            own = adds = MISSING
        if level.context_count:
            lines.append(row(context, f"{level.context_count:,}{mark}", f"{level.count:,}{mark}", own, rest, adds))
        else:
            lines.append(row(context, "never", MISSING, MISSING, rest, MISSING, style=MUTED))
    uniform = levels[-1]
    lines.append(row("any word", "", "", format_percent(uniform.discounted_prob), "", format_percent(uniform.part)))
    label, total = f"= P({truncate(word, 14)})", format_percent(sum(level.part for level in levels)).rjust(ADDS_WIDTH)
    room, legend = max(0, width - cell_len(label) - ADDS_WIDTH - 1), f"{LEGEND}  adds = own × the rests above"
    legend = legend if cell_len(legend) <= room else truncate(LEGEND, room)
    gap = " " * (width - cell_len(legend) - cell_len(label) - ADDS_WIDTH)
    lines.append(Content.assemble((legend, MUTED), gap, label, (total, "bold $accent")))
    return Content("\n").join(lines)


def describe_counts(context: str, word: str, seen: int, count: int, width: int) -> Content:
    """Return how often a context was read, and how often a word came next: the counts before any smoothing."""
    rest = Content.assemble(
        (f"{seen:,}", "bold"), (" times, " if context else " words, ", MUTED),
        (f"{count:,}", "bold"), (" before " if context else " are ", MUTED),
        f"“{truncate(word, 14)}”", (" = ", MUTED), (format_percent(count / max(1, seen)), "bold"),
    )  # fmt: skip
    name = f"“{_end_of(context, width - rest.cell_length - 11)}” " if context else ""
    return Content.assemble(("counted ", MUTED), name, rest)


def _end_of(context: str, width: int) -> str:
    """Return the end of a context that fits `width` cells."""
    context = context or "anything"
    if cell_len(context) <= width:
        return context
    while len(context) > 1 and cell_len(context) >= width:
        context = context[1:]
    return f"…{context}"
