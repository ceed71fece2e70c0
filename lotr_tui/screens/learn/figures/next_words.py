"""Figures of the next words and of sampled texts: by order of the counts, and through the sampler chain."""

from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from rich.cells import cell_len, set_cell_size
from textual.app import ComposeResult
from textual.containers import Container, Vertical
from textual.content import Content

from engine.data.tokenizers import EOS_ID, UNK_ID
from engine.errors import CorpusError
from engine.generation import generate
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.models.ngram import BackoffLevel, KneserNey
from engine.runtime.process import Cancellation
from lotr_tui.background_task import Debounce
from lotr_tui.formatting import MISSING, format_percent, truncate
from lotr_tui.learn.material import Material, continue_text, encode_line, find_example
from lotr_tui.screens.inspect.text_view import next_token_name
from lotr_tui.screens.learn.figure import REST_SECONDS, Drawing, LineBar, Sample, SamplesFigure, WordBar, word_bars
from lotr_tui.screens.session.side import TokenBars
from lotr_tui.theme import MUTED
from lotr_tui.widgets.slider import Slider

MAX_BARS = 20

COUNTING_EXAMPLE = "What should I do? Bilbo, I am afraid of the"
ORDERS = (1, 2, 3, 4, 5)
ORDER_NAMES = ("1: unigram", "2: bigram", "3: trigram", "4: 4-gram", "5: 5-gram")
LIKELY_GOAL = 0.5
COUNTING_SAMPLE_TOKENS = 24
COUNT_WIDTH, OWN_WIDTH, REST_WIDTH, ADDS_WIDTH = 8, 8, 6, 8
NUM_ROWS = 8  # headings, the contexts of a 5-gram, the uniform distribution and the sum
LEGEND = "× times  ‹ different words before"

SAMPLING_EXAMPLE = "It is a long time since"
TEMPERATURES = tuple(step / 20 for step in range(41))
TOP_KS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 0)  # 0 keeps all words
TOP_PS = (*(percent / 100 for percent in range(5, 100, 5)), 0.98, 0.99, 1.0)
MIN_PS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
LADDER, SHORT_LADDER = (0.3, 0.7, 1.0, 1.5), (0.3, 1.0, 1.5)  # temperatures of the samples besides the chosen one
SAMPLE_TOKENS, SHORT_SAMPLE_TOKENS = 30, 20
TWICE, HALF, FEW_WORDS = 2.0, 0.5, 10


class CountModels(NamedTuple):
    models: dict[int, KneserNey]
    example: str


class CountingFigure(SamplesFigure[CountModels]):
    """Next words after the words before the cursor, by order, and the back-off of the word on the cursor."""

    BINDING_GROUP_TITLE = "Counting"
    DEFAULT_CSS = f"""
    CountingFigure Slider {{ margin: 0 1; max-width: 48; }}
    CountingFigure #words {{ height: 1fr; layout: horizontal; }}
    CountingFigure #backoff {{ width: 1fr; max-width: 90; }}
    CountingFigure #bars {{ height: 1fr; width: 1fr; max-width: 90; display: none; }}
    CountingFigure #samples {{ height: 1; }}
    CountingFigure.-wide #backoff {{ width: 55; }}
    CountingFigure.-wide #bars, CountingFigure.-tall #bars {{ display: block; }}
    CountingFigure.-tall #words {{ layout: vertical; }}
    CountingFigure.-tall #backoff {{ width: 1fr; }}
    CountingFigure.-taller #backoff {{ margin: 1 0; }}
    CountingFigure.-taller Slider {{ margin-top: 1; }}
    CountingFigure.-taller #samples {{ height: {len(ORDERS) + 1}; margin-top: 1; }}
    """
    LAYOUTS: ClassVar = {"-wide": (76, 0), "-tall": (0, 14), "-taller": (0, 20)}
    seed, SEED_STEP = 0, len(ORDERS)  # each order adds its number, so that the texts do not share their noise

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._shown: tuple[tuple[int, ...], int | None, int] | None = None  # words before, the word there, order
        self._sampled: tuple[object, ...] = ()
        self._expected: dict[tuple[int, ...], int] = {}  # words before, and the one that the highest order expects
        self._parts: list[int] = []  # of the task, that the shown place does
        self._judging = Debounce(self, REST_SECONDS, lambda: list(map(self.finish_part, self._parts)))

    def compose_figure(self) -> ComposeResult:
        yield LineBar(COUNTING_EXAMPLE, "Type; ctrl+← ctrl+→ choose a word, ↑ ↓ the order; ctrl+r samples again")
        help_line = "Words of an n-gram; ← → change it"
        yield Slider("order", ORDER_NAMES, len(ORDERS) - 1, help_line=help_line, id="order")
        with Container(id="words"):
            yield Drawing(id="backoff")
            yield Drawing(id="bars")
        yield Drawing(id="samples")

    def load(self, cancelled: Cancellation) -> Generator[str, None, CountModels]:
        models = {}
        for order in ORDERS:
            models[order] = yield from self.material.counts(order)
        dataset = yield from self.material.words()
        lines = (line.text for line in dataset.splits.train)
        return CountModels(models, find_example(COUNTING_EXAMPLE, lines, dataset.tokenizer, start_words=5))

    def set_up(self) -> None:
        self.line.set_example(self.data.example)

    def show_view(self) -> None:
        """Show the next words and the back-off at the cursor: at the word on it, or else at the next word."""
        models, line, order = self.data.models, self.line.input, ORDERS[self.query_one(Slider).index]
        tokenizer = models[order].tokenizer
        spans = tokenizer.spans(line.value)
        index = sum(span.end <= line.cursor_position for span in spans)
        ids, at = tuple(span.id for span in spans[:index]), spans[index] if index < len(spans) else None
        sampled = ids, order, self.seed, self.has_class("-taller")
        if sampled != self._sampled:
            self._sampled = sampled
            self._sample(ids, order)
        shown, is_first = (ids, None if at is None else at.id, order), self._shown is None
        if shown == self._shown:
            return
        self._shown = shown
        log_probs, state, *_ = generate.prefill(models[order], ids)
        probs = np.exp(log_probs.astype(np.float64))
        likeliest = np.argsort(-probs, kind="stable")[:MAX_BARS].tolist()
        # At the end of the line, an expected word stays while the order changes, which the task asks for.
        token = self._expected.get(ids, likeliest[0]) if at is None else at.id
        levels, word = models[order].explain_backoff(state, token), next_token_name(tokenizer, token)
        contexts = [
            " ".join("start" if id == EOS_ID else tokenizer.tokens[id] for id in level.context) for level in levels[:-1]
        ]
        self.query_one("#backoff", Drawing).show(lambda width, _: backoff_table(word, contexts, levels, order, width))
        bars = [WordBar(next_token_name(tokenizer, id), float(probs[id]), None, id == token) for id in likeliest]
        rank = int((probs > probs[token]).sum()) + 1
        last = WordBar(word, float(probs[token]), is_marked=True, note=f"#{rank:,}")
        self.query_one("#bars", Drawing).show(lambda *size: word_bars("next word", ("prob",), bars, last, *size))
        if is_first and not self.line.is_edited:  # the student has done nothing yet
            return
        is_highest, self._parts = order == ORDERS[-1], []
        if is_highest and sum(level.part for level in levels) > LIKELY_GOAL and token != UNK_ID:
            self._expected[ids] = token
            self._parts.append(0)
        if order == 1 and self._expected.get(ids) == token:
            self._parts.append(1)
        if is_highest and len(ids) >= 2 and not models[3].explain_backoff(ids[-2:], token)[0].context_count:
            self._parts.append(2)
        self._judging.request()

    def _sample(self, ids: tuple[int, ...], order: int) -> None:
        models, seed, orders = self.data.models, self.seed, ORDERS if self.has_class("-taller") else (order,)
        settings = SamplerSettings(temperature=1.0, max_tokens=COUNTING_SAMPLE_TOKENS)

        def sample(cancelled: Cancellation) -> Iterator[list[Sample]]:
            samples = []
            for each in orders:
                state = generate.prefill(models[each], ids)
                text = continue_text(models[each], state, ids, settings, seed + each, cancelled)
                samples.append(Sample(f"order {each}, seed {seed + each}", f"… {text}", each == order))
            yield samples

        self.work.start(sample)

    def receive(self, items: list[Any]) -> None:
        self.show_samples(items[-1])


def backoff_table(word: str, contexts: list[str], levels: list[BackoffLevel], order: int, width: int) -> Content:
    """Return a row for each context of a word, the longest first, and its probability as their sum."""
    narrow = COUNT_WIDTH + OWN_WIDTH + REST_WIDTH + ADDS_WIDTH
    heading = truncate(f"+{word}", max(COUNT_WIDTH - 1, min(14, width - narrow - 20)))
    word_width = max(COUNT_WIDTH, cell_len(heading) + 1)
    context_width = max(6, width - narrow - word_width)

    def row(context: str, *cells: str, style: str = "") -> Content:
        widths = (COUNT_WIDTH, word_width, OWN_WIDTH, REST_WIDTH, ADDS_WIDTH)
        numbers = "".join(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        context = context or "anything"
        if cell_len(context) >= context_width:
            while len(context) > 1 and cell_len(context) >= context_width - 1:
                context = context[1:]
            context = f"…{context}"
        return Content.styled(set_cell_size(context, context_width) + numbers, style)

    lines = [row("after", "seen", heading, "own", "rest", "adds", style=MUTED)]
    lines += [Content("")] * (NUM_ROWS - 3 - order)  # a row does not move with the order
    lines += [Content.styled("too near the start", MUTED)] * (order - len(contexts))
    for level, context in zip(levels[:-1], contexts, strict=True):
        mark, rest = "‹" if len(level.context) < order - 1 else "×", format_percent(level.backoff_weight)
        own, adds = (format_percent(each) if level.count else MISSING for each in (level.discounted_prob, level.part))
        if level.context_count:
            lines.append(row(context, f"{level.context_count:,}{mark}", f"{level.count:,}{mark}", own, rest, adds))
        else:
            lines.append(row(context, "never", MISSING, MISSING, rest, MISSING, style=MUTED))
    uniform = levels[-1]
    lines.append(row("any word", "", "", format_percent(uniform.discounted_prob), "", format_percent(uniform.part)))
    label, total = f"= P({truncate(word, 14)})", format_percent(sum(level.part for level in levels)).rjust(ADDS_WIDTH)
    legend = truncate(LEGEND, max(0, width - cell_len(label) - ADDS_WIDTH - 1))
    gap = " " * (width - cell_len(legend) - cell_len(label) - ADDS_WIDTH)
    lines.append(Content.assemble((legend, MUTED), gap, label, (total, "bold $accent")))
    return Content("\n").join(lines)


class SampledModel(NamedTuple):
    model: LanguageModel
    example: str


class ReadLine(NamedTuple):
    """A line and the state of a model after it."""

    text: str
    ids: tuple[int, ...]
    state: generate.DecoderState


class SamplingFigure(SamplesFigure[SampledModel]):
    """Four sliders of the sampler chain, their effect on the next words, and sampled texts."""

    DEFAULT_CSS = f"""
    SamplingFigure #chain {{ height: 6; layout: horizontal; }}
    SamplingFigure #sliders {{ width: 1fr; height: 6; padding: 0 1; }}
    SamplingFigure #ratio {{ height: 2; padding: 0; }}
    SamplingFigure TokenBars {{ height: 1fr; width: 1fr; max-width: 90; }}
    SamplingFigure #samples {{ height: 1fr; }}
    SamplingFigure.-tall #chain {{ layout: vertical; height: 1fr; margin-top: 1; }}
    SamplingFigure.-tall TokenBars {{ margin-top: 1; }}
    SamplingFigure.-tall #samples {{ height: {2 * (len(LADDER) + 1) + 1}; margin-top: 1; }}
    """
    LAYOUTS: ClassVar = {"-tall": (0, 22)}

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self._read: ReadLine | None = None
        self._view: tuple[str, SamplerSettings, int] | None = None

    def compose_figure(self) -> ComposeResult:
        yield LineBar(SAMPLING_EXAMPLE, "Type a line; tab reaches the sliders; ctrl+r samples again")
        sliders = (
            ("temperature", [f"{each:.2f}" for each in TEMPERATURES], "Divisor of the log-probabilities"),
            ("top-k", [str(each or "off").rjust(4) for each in TOP_KS], "Number of likeliest words to keep"),
            ("top-p", [" off" if each == 1 else f"{each:.2f}" for each in TOP_PS],
             "Total probability of the likeliest words to keep"),
            ("min-p", [f"{each:.2f}" if each else " off" for each in MIN_PS],
             "Minimum fraction of the likeliest word's probability"),
        )  # fmt: skip
        with Container(id="chain"):
            with Vertical(id="sliders"):
                for name, texts, help_line in sliders:
                    index = TEMPERATURES.index(1.0) if name == "temperature" else texts.index(" off")
                    yield Slider(name.ljust(11), texts, index, help_line=f"{help_line}; ← → change it", id=name)
                yield Drawing(id="ratio")
            bars = TokenBars()
            bars.can_focus = False
            yield bars
        yield Drawing(id="samples")

    def load(self, cancelled: Cancellation) -> Generator[str, None, SampledModel]:
        model, example = (yield from self.material.model(cancelled)).model, SAMPLING_EXAMPLE
        tokenizer = model.tokenizer
        if tokenizer.unknown_spans(example):
            with suppress(CorpusError):  # the model alone is enough
                dataset = yield from self.material.words()
                lines = (line.text for line in dataset.splits.train)
                example = find_example(example, lines, tokenizer, start_words=5)
        return SampledModel(model, example)

    def set_up(self) -> None:
        self.line.set_example(self.data.example)

    @property
    def settings(self) -> SamplerSettings:
        index = {str(slider.id): slider.index for slider in self.query(Slider)}
        return SamplerSettings(
            temperature=TEMPERATURES[index["temperature"]],
            top_k=TOP_KS[index["top-k"]],
            top_p=TOP_PS[index["top-p"]],
            min_p=MIN_PS[index["min-p"]],
            max_tokens=SAMPLE_TOKENS if self.has_class("-tall") else SHORT_SAMPLE_TOKENS,
        )

    def show_view(self) -> None:
        text, settings, seed = self.line.text, self.settings, self.seed
        if self._view == (text, settings, seed):
            return
        self._view = text, settings, seed
        model, known = self.data.model, self._read if self._read is not None and self._read.text == text else None
        temperatures = (settings.temperature, *(LADDER if self.has_class("-tall") else SHORT_LADDER))
        if known is not None:
            self._show_words(known, settings)

        def run(cancelled: Cancellation) -> Iterator[ReadLine | list[Sample]]:
            read = known
            if read is None:
                ids = encode_line(model, text)
                read = ReadLine(text, ids, generate.prefill_prompt(model, ids))
                yield read
            texts: dict[float, str] = {}
            for temperature in dict.fromkeys(temperatures):
                chain = replace(settings, temperature=temperature)
                texts[temperature] = continue_text(model, read.state, read.ids, chain, seed, cancelled)
                yield [
                    Sample(f"seed {seed}, {each:.2f}", f"… {texts.get(each, '')}".rstrip(), row == 0)
                    for row, each in enumerate(temperatures)
                ]

        self.work.start(run)

    def receive(self, items: list[Any]) -> None:
        for item in items:
            if isinstance(item, ReadLine):
                self._read = item
                self._show_words(item, self.settings)
            else:
                self.show_samples(item)

    def _show_words(self, read: ReadLine, settings: SamplerSettings) -> None:
        tokenizer, bars = self.data.model.tokenizer, self.query_one(TokenBars)
        text, at_one = (
            generate.TextInProgress(
                self.data.model, read.ids, chain, state=read.state, is_first_token=False, end_ids=generate.END_OF_TEXT
            )
            for chain in (settings, replace(settings, temperature=1.0))
        )
        preview, probs = generate.next_token_probs(text, MAX_BARS), generate.sampling_probs([text])[0]
        bars.set_place(tokenizer.tokens[read.ids[-1]] if read.ids else "", "token")
        bars.show(preview, settings.describe(only_filters=True))
        likeliest, positive = int(np.argmax(probs)), probs[probs > 0]
        entropy = max(0.0, float(-np.vecdot(positive, np.log2(positive))))
        prob_at_one = float(generate.sampling_probs([at_one])[0][likeliest])
        ratio = float(probs[likeliest]) / prob_at_one
        # The ratio leaves out what the rest of the sampler chain changes.
        is_alone = not settings.top_k and settings.top_p == 1 and not settings.min_p
        effect = " as likely as at 1" if is_alone else " by temperature alone"
        parts = [(": ", MUTED), (f"{ratio:.2f} ×", "bold"), (effect, MUTED)]
        if prob_at_one > 1 / TWICE and ratio > HALF:
            parts = [(f": {format_percent(prob_at_one)} at 1, cannot double", MUTED)]
        name, bits = next_token_name(tokenizer, likeliest), f"{preview.entropy:.1f} → {entropy:.1f} bits"
        parts = [(name, "bold $accent"), *parts, ("\nentropy ", MUTED), (bits, "")]
        self.query_one("#ratio", Drawing).show(Content.assemble(*parts))
        results = ratio >= TWICE, ratio <= HALF, settings.temperature == 1 and preview.num_kept < FEW_WORDS
        for part, is_done in enumerate(results):
            if is_done:
                self.finish_part(part)
