"""Figure of the chapter on sampling: next words before and after the sampler chain, and texts at some temperatures."""

import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Input, Static

from engine.data.tokenizers.base import Tokenizer
from engine.errors import CorpusError
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.runtime.worker import Cancellation
from lotr_tui.background_task import BackgroundTask
from lotr_tui.formatting import format_percent, token_noun
from lotr_tui.learn.example_line import START_WORDS, find_example
from lotr_tui.learn.material import ClassModel, Material
from lotr_tui.learn.sample_ladder import ReadLine, read_line, sample_ladder
from lotr_tui.learn.sampler_view import SamplerView, view_sampler
from lotr_tui.screens.inspect.page import next_token_name
from lotr_tui.screens.learn.figure import ChapterFigure
from lotr_tui.screens.learn.figures.sampling.sliders import SAMPLE_TOKENS, make_sliders, read_settings
from lotr_tui.screens.learn.line_bar import LineBar
from lotr_tui.screens.learn.sample_rows import Sample, SampleRows
from lotr_tui.screens.learn.word_bars import WordBar, WordBars
from lotr_tui.session.session_model import is_slow
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bindings import binding_table
from lotr_tui.widgets.slider import Slider

EXAMPLE = "It is a long time since"
LADDER = (0.3, 0.7, 1.0, 1.5)
"""Temperatures of the samples besides the chosen one."""
SHORT_LADDER = (0.3, 1.0, 1.5)
FIRST_SEED = 7
SHORT_SAMPLE_TOKENS = 20
MAX_BARS = 20
MAX_SHORT_LINE = 300
"""Characters that a fast model reads at once, within milliseconds."""
TWICE, HALF = 2.0, 0.5
FEW_WORDS = 10
ENTROPY_WIDTH = 66
"""Columns of the figure from which the entropy has its name beside it; the unit is always there."""
TALL_HEIGHT = 22
"""Rows from which the bars are below the sliders, not beside them."""


@dataclass(frozen=True)
class SampledModel:
    """A model, and the line that the figure starts with."""

    source: ClassModel
    example: str

    @property
    def model(self) -> LanguageModel:
        """Model that continues the line."""
        return self.source.model

    @property
    def tokenizer(self) -> Tokenizer:
        """Tokens of the model."""
        return self.source.tokenizer


class SamplingFigure(ChapterFigure[SampledModel]):
    """Four sliders of the sampler chain, their effect on the next words, and sampled texts."""

    BINDING_GROUP_TITLE = "Sampling"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-sampling", "seed | f8 | next_seed | next seed | Sample other texts, with the next seed", show=True
    )
    DEFAULT_CSS = f"""
    SamplingFigure #chain {{ height: 6; layout: horizontal; }}
    SamplingFigure #sliders {{ width: 1fr; height: 6; padding: 0 1; }}
    SamplingFigure #sliders Static {{ height: 1; text-wrap: nowrap; text-overflow: ellipsis; }}
    SamplingFigure WordBars {{ max-width: 90; }}
    SamplingFigure SampleRows {{ height: 1fr; }}
    SamplingFigure.-tall #chain {{ layout: vertical; height: 1fr; margin-top: 1; }}
    SamplingFigure.-tall #sliders {{ height: 6; }}
    SamplingFigure.-tall WordBars {{ margin-top: 1; }}
    SamplingFigure.-tall SampleRows {{ height: {2 * (len(LADDER) + 1) + 1}; margin-top: 1; }}
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.seed = FIRST_SEED
        """Seed of the sampled texts."""
        self._read: ReadLine | None = None
        self._first_view: tuple[str, SamplerSettings] | None = None
        """Line and sampler chain before the student did something."""
        self._reading = threading.Lock()
        """Held while a model reads a line, so that slow models read one at a time."""
        self._sampling: BackgroundTask[ReadLine | tuple[Sample, ...]] = BackgroundTask(
            self, "sampling-figure", self._show_items, self.show_failure, interval=0.01
        )

    # Setting up

    def compose_figure(self) -> ComposeResult:
        """Yield the line, the sliders, the next words and the sampled texts."""
        yield SamplingLine(EXAMPLE)
        with Container(id="chain"):
            with Vertical(id="sliders"):
                yield from make_sliders()
                yield Static(id="kept", markup=False)
                yield Static(id="ratio", markup=False)
            yield WordBars(id="bars")
        yield SampleRows(id="samples")

    def load(self, cancelled: Cancellation) -> Generator[str, None, SampledModel]:
        """Load the model."""
        source = yield from self.material.model(cancelled)
        example = EXAMPLE
        if source.tokenizer.unknown_spans(EXAMPLE):
            with suppress(CorpusError):  # the model alone is enough
                dataset = yield from self.material.words()
                lines = (line.text for line in dataset.splits.train)
                example = find_example(EXAMPLE, lines, source.tokenizer, start_words=START_WORDS)
        return SampledModel(source, example)

    def show_data(self, data: SampledModel) -> None:
        """Show the example line."""
        self.show_note(data.source.note)
        self.query_one(LineBar).set_example(data.example)
        self._first_view = self.query_one(LineBar).text, self.settings
        self._follow_line()

    @property
    def is_idle(self) -> bool:
        """True once the sampled texts are shown too."""
        return super().is_idle and not self._sampling.is_running

    def on_unmount(self) -> None:
        """Stop the threads."""
        self._sampling.cancel()

    def on_resize(self) -> None:
        """Lay the bars beside or below the sliders."""
        was_tall = self.has_class("-tall")
        self.set_class(self.size.height >= TALL_HEIGHT, "-tall")
        if was_tall != self.has_class("-tall"):
            self._show_words()
            self._sample()

    # What the controls say

    @property
    def settings(self) -> SamplerSettings:
        """Sampler chain of the sliders."""
        return read_settings({str(slider.id): slider.index for slider in self.query(Slider)})

    def action_next_seed(self) -> None:
        """Sample other texts."""
        self.seed += 1
        self._sample()

    @on(Input.Changed)
    def _follow_line(self) -> None:
        """Read the line, in a thread if that may take long, and sample after it."""
        if self.data is None:
            return
        text = self.query_one(LineBar).text
        if not is_slow(self.data.model) and len(text) <= MAX_SHORT_LINE:
            self._read = read_line(self.data.model, text)
            self._show_words()
        self._sample()

    @on(Slider.Changed)
    def _follow_sliders(self) -> None:
        """Show another sampler chain."""
        self._show_words()
        self._sample()

    # Reading and sampling

    def _sample(self) -> None:
        """Sample after the line; one that is being read is read first."""
        if self.data is not None:
            line = self.query_one(LineBar).text
            self._start(self._read if self._read is not None and self._read.text == line else None)

    def _start(self, known: ReadLine | None) -> None:
        assert self.data is not None
        model, text, settings, seed = self.data.model, self.query_one(LineBar).text, self.settings, self.seed
        is_tall = self.has_class("-tall")
        others, max_tokens = (LADDER, SAMPLE_TOKENS) if is_tall else (SHORT_LADDER, SHORT_SAMPLE_TOKENS)
        temperatures, chain = (settings.temperature, *others), replace(settings, max_tokens=max_tokens)

        def run(cancelled: Cancellation) -> Iterator[ReadLine | tuple[Sample, ...]]:
            read = known
            if read is None:
                with self._reading:
                    if cancelled():
                        return
                    read = read_line(model, text)
                yield read
            for texts in sample_ladder(model, read, chain, temperatures, seed, cancelled):
                yield tuple(
                    Sample(f"{temperature:.2f}", f"… {sampled}".rstrip(), row == 0, f"seed {seed}, {temperature:.2f}")
                    for row, (temperature, sampled) in enumerate(zip(temperatures, texts, strict=True))
                )

        self._sampling.start(run)

    def _show_items(self, items: list[ReadLine | tuple[Sample, ...]]) -> None:
        for item in items:
            if isinstance(item, ReadLine):
                self._read = item
                self._show_words()
        if not isinstance(items[-1], ReadLine):
            heading = f"sampled with seed {self.seed} at the chosen and other temperatures (f8: next seed)"
            self.query_one(SampleRows).show(heading, items[-1])

    # The figure

    def _show_words(self) -> None:
        """Show the next words after the line that was read, and check the task."""
        if self.data is None or self._read is None:
            return
        tokenizer, settings, read = self.data.tokenizer, self.settings, self._read
        view = view_sampler(self.data.model, read, settings, MAX_BARS)
        noun = token_noun(tokenizer)
        bars = [
            WordBar(
                next_token_name(tokenizer, candidate.ids[0]),
                candidate.sampling_prob,
                candidate.model_prob,
                is_marked=candidate.ids[0] == view.likeliest,
            )
            for candidate in view.preview.candidates
            if candidate.model_prob > 0
        ]
        self.query_one(WordBars).show(f"next {noun}", ("model", "sampler"), bars, scale=1.0)
        kept, size = view.preview.num_kept, view.preview.vocabulary_size
        size_text = f" of {size:,} {noun}s" if self.has_class("-tall") else ""
        if size_text and kept == size - 1 and tokenizer.unk_id is not None:
            size_text += " (never <unk>)"
        self.query_one("#kept", Static).update(
            Content.assemble(
                ("keeps ", MUTED),
                (f"{kept:,}", "bold"),
                (f"{size_text} · {'' if self.size.width < ENTROPY_WIDTH else 'entropy '}", MUTED),
                (f"{view.preview.entropy:.1f} → {max(0.0, view.sampling_entropy):.1f}", "bold"),
                (" bits", MUTED),
            )
        )
        is_alone = not settings.top_k and settings.top_p == 1 and not settings.min_p
        ratio = _describe_ratio(next_token_name(tokenizer, view.likeliest), view, is_alone=is_alone)
        self.query_one("#ratio", Static).update(ratio)
        if (read.text, settings) != self._first_view:
            self._check_task(settings, view)

    def _check_task(self, settings: SamplerSettings, view: SamplerView) -> None:
        if view.ratio >= TWICE:
            self.finish_part(0)
        if view.ratio <= HALF:
            self.finish_part(1)
        if settings.temperature == 1 and view.preview.num_kept < FEW_WORDS:
            self.finish_part(2)


class SamplingLine(LineBar):
    """Line that is continued."""

    HELP_LINE = "Type a line; tab reaches the sliders; f8 samples with the next seed"


def _describe_ratio(name: str, view: SamplerView, *, is_alone: bool) -> Content:
    """Return how much likelier the likeliest word is than at temperature 1.

    The ratio leaves out what the rest of the sampler chain changes; `is_alone` is True if there is no rest.
    """
    if view.prob_at_one > 1 / TWICE and view.ratio > HALF:
        return Content.assemble(
            (name, "bold $accent"), (f": {format_percent(view.prob_at_one)} at 1, cannot double", MUTED)
        )
    meaning = " as likely as at 1" if is_alone else " by temperature alone"
    return Content.assemble((name, "bold $accent"), (": ", MUTED), (f"{view.ratio:.2f} ×", "bold"), (meaning, MUTED))
