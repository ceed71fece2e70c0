"""Figure of the chapter on sampling: next words before and after the sampler chain, and texts at some temperatures."""

from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from textual import on
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Container, Vertical
from textual.content import Content
from textual.widgets import Input

from engine.errors import CorpusError
from engine.generation.generate import (
    END_OF_TEXT,
    DecoderState,
    TextInProgress,
    next_token_probs,
    prefill_prompt,
    sampling_probs,
)
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from engine.runtime.process import Cancellation
from lotr_tui.formatting import format_percent, token_noun
from lotr_tui.learn.lines import continue_text, encode_line, find_example
from lotr_tui.learn.material import ClassModel, Material
from lotr_tui.screens.inspect.page import next_token_name
from lotr_tui.screens.learn.figure import ChapterFigure, Drawing, LineBar
from lotr_tui.screens.learn.rows import Sample, WordBar, sample_rows, word_bars
from lotr_tui.session.session_model import is_slow
from lotr_tui.theme import MUTED
from lotr_tui.widgets.keys import binding_table
from lotr_tui.widgets.slider import Slider

EXAMPLE = "It is a long time since"
TEMPERATURES = tuple(step / 20 for step in range(41))
TOP_KS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 0)  # 0 keeps all words
TOP_PS = (*(percent / 100 for percent in range(5, 100, 5)), 0.98, 0.99, 1.0)
MIN_PS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
LADDER, SHORT_LADDER = (0.3, 0.7, 1.0, 1.5), (0.3, 1.0, 1.5)  # temperatures of the samples besides the chosen one
SAMPLE_TOKENS, SHORT_SAMPLE_TOKENS = 30, 20
FIRST_SEED = 7
MAX_BARS = 20
MAX_SHORT_LINE = 300  # characters that a fast model reads at once, within milliseconds
TWICE, HALF, FEW_WORDS = 2.0, 0.5, 10
ENTROPY_WIDTH = 66  # columns of the figure from which the entropy has its name beside it
TALL_HEIGHT = 22  # rows from which the bars are below the sliders, not beside them


@dataclass(frozen=True)
class SampledModel:
    """A model, and the line that the figure starts with."""

    source: ClassModel
    example: str


@dataclass(frozen=True)
class ReadLine:
    """A line and the state of a model after it."""

    text: str
    ids: tuple[int, ...]
    state: DecoderState


def read_line(model: LanguageModel, text: str) -> ReadLine:
    ids = encode_line(model, text)
    return ReadLine(text, ids, prefill_prompt(model, ids))


class SamplingFigure(ChapterFigure[SampledModel]):
    """Four sliders of the sampler chain, their effect on the next words, and sampled texts."""

    BINDING_GROUP_TITLE = "Sampling"
    BINDINGS: ClassVar[list[BindingType]] = binding_table(
        "learn-sampling", "again | r,ctrl+r | again | again | Sample other texts, with the next seed | r", show=True
    )
    DEFAULT_CSS = f"""
    SamplingFigure #chain {{ height: 6; layout: horizontal; }}
    SamplingFigure #sliders {{ width: 1fr; height: 6; padding: 0 1; }}
    SamplingFigure #sliders Drawing {{ height: 1; padding: 0; }}
    SamplingFigure #bars {{ height: 1fr; width: 1fr; max-width: 90; }}
    SamplingFigure #samples {{ height: 1fr; }}
    SamplingFigure.-tall #chain {{ layout: vertical; height: 1fr; margin-top: 1; }}
    SamplingFigure.-tall #bars {{ margin-top: 1; }}
    SamplingFigure.-tall #samples {{ height: {2 * (len(LADDER) + 1) + 1}; margin-top: 1; }}
    """

    def __init__(self, material: Material) -> None:
        super().__init__(material)
        self.seed = FIRST_SEED
        self._read: ReadLine | None = None
        self._first_view: tuple[str, SamplerSettings] | None = None  # before the student did something

    def compose_figure(self) -> ComposeResult:
        yield LineBar(EXAMPLE, "Type a line; tab reaches the sliders; ctrl+r samples again")
        with Container(id="chain"):
            with Vertical(id="sliders"):
                yield Slider(
                    "temperature", [f"{each:.2f}" for each in TEMPERATURES], TEMPERATURES.index(1.0),
                    help_line="Divisor of the log-probabilities; ← → change it", id="temperature",
                )  # fmt: skip
                yield Slider(
                    "top-k      ", [str(each or "off").rjust(4) for each in TOP_KS], len(TOP_KS) - 1,
                    help_line="Number of likeliest words to keep; ← → change it", id="top-k",
                )  # fmt: skip
                yield Slider(
                    "top-p      ", [" off" if each == 1 else f"{each:.2f}" for each in TOP_PS], len(TOP_PS) - 1,
                    help_line="Total probability of the likeliest words to keep; ← → change it", id="top-p",
                )  # fmt: skip
                yield Slider(
                    "min-p      ", [f"{each:.2f}" if each else " off" for each in MIN_PS],
                    help_line="Minimum fraction of the likeliest word's probability; ← → change it", id="min-p",
                )  # fmt: skip
                yield Drawing("kept")
                yield Drawing("ratio")
            yield Drawing("bars", "Most likely next words; ▸ marks the likeliest after the sampler chain")
        yield Drawing("samples", "Texts sampled with the seed that is shown; ¶ is the end of a line")

    def load(self, cancelled: Cancellation) -> Generator[str, None, SampledModel]:
        source = yield from self.material.model(cancelled)
        tokenizer, example = source.model.tokenizer, EXAMPLE
        if tokenizer.unknown_spans(EXAMPLE):
            with suppress(CorpusError):  # the model alone is enough
                dataset = yield from self.material.words()
                lines = (line.text for line in dataset.splits.train)
                example = find_example(EXAMPLE, lines, tokenizer, start_words=5)
        return SampledModel(source, example)

    def show_data(self, data: SampledModel) -> None:
        self.show_note(data.source.note)
        self.line.set_example(data.example)
        self._first_view = data.example, self.settings
        self._follow_line()

    def on_resize(self) -> None:
        was_tall = self.has_class("-tall")
        self.set_class(self.size.height >= TALL_HEIGHT, "-tall")
        if was_tall != self.has_class("-tall"):
            self._show_words()
            self._sample()

    @property
    def settings(self) -> SamplerSettings:
        """Sampler chain of the sliders."""
        index = {str(slider.id): slider.index for slider in self.query(Slider)}
        return SamplerSettings(
            temperature=TEMPERATURES[index["temperature"]],
            top_k=TOP_KS[index["top-k"]],
            top_p=TOP_PS[index["top-p"]],
            min_p=MIN_PS[index["min-p"]],
            max_tokens=SAMPLE_TOKENS if self.has_class("-tall") else SHORT_SAMPLE_TOKENS,
        )

    def action_again(self) -> None:
        self.seed += 1
        self._sample()

    @on(Input.Changed)
    def _follow_line(self) -> None:
        if self.data is None:
            return
        model, text = self.data.source.model, self.line.text
        if not is_slow(model) and len(text) <= MAX_SHORT_LINE:
            self._read = read_line(model, text)
            self._show_words()
        self._sample()

    @on(Slider.Changed)
    def _follow_sliders(self) -> None:
        self._show_words()
        self._sample()

    def _sample(self) -> None:
        if self.data is None:
            return
        model, text, settings, seed = self.data.source.model, self.line.text, self.settings, self.seed
        known = self._read if self._read is not None and self._read.text == text else None
        others = LADDER if self.has_class("-tall") else SHORT_LADDER
        temperatures = (settings.temperature, *others)

        def run(cancelled: Cancellation) -> Iterator[ReadLine | list[Sample]]:
            read = known or read_line(model, text)
            yield read
            texts: dict[float, str] = {}
            for temperature in dict.fromkeys(temperatures):
                chain = replace(settings, temperature=temperature)
                texts[temperature] = continue_text(model, read.state, read.ids, chain, seed, cancelled)
                yield [
                    Sample(f"{each:.2f}", f"… {texts.get(each, '')}".rstrip(), row == 0, f"seed {seed}, {each:.2f}")
                    for row, each in enumerate(temperatures)
                ]

        self.work.start(run)

    def receive(self, items: list[Any]) -> None:
        for item in items:
            if isinstance(item, ReadLine) and item is not self._read:
                self._read = item
                self._show_words()
        if not isinstance(samples := items[-1], ReadLine):
            heading = (
                f"sampled with seed {self.seed} at the chosen and other temperatures (r: again, with the next seed)"
            )
            self.query_one("#samples", Drawing).show(lambda *size: sample_rows(heading, samples, *size))

    def _show_words(self) -> None:
        if self.data is None or self._read is None:
            return
        model, settings, read = self.data.source.model, self.settings, self._read
        tokenizer, noun = model.tokenizer, token_noun(model.tokenizer)
        text, at_one = (
            TextInProgress(model, read.ids, chain, state=read.state, is_first_token=False, end_ids=END_OF_TEXT)
            for chain in (settings, replace(settings, temperature=1.0))
        )
        preview, probs = next_token_probs(text, MAX_BARS), sampling_probs([text])[0]
        likeliest, positive = int(np.argmax(probs)), probs[probs > 0]
        entropy = max(0.0, float(-np.vecdot(positive, np.log2(positive))))
        prob_at_one = float(sampling_probs([at_one])[0][likeliest])
        ratio, name = float(probs[likeliest]) / prob_at_one, next_token_name(tokenizer, likeliest)
        bars = [
            WordBar(
                next_token_name(tokenizer, each.ids[0]), each.sampling_prob, each.model_prob, each.ids[0] == likeliest
            )
            for each in preview.candidates
            if each.model_prob > 0
        ]
        headings = "model", "sampler"
        self.query_one("#bars", Drawing).show(lambda *size: word_bars(f"next {noun}", headings, bars, *size, scale=1.0))
        kept, size = preview.num_kept, preview.vocabulary_size
        of = f" of {size:,} {noun}s" if self.has_class("-tall") else ""
        if of and kept == size - 1 and tokenizer.unk_id is not None:
            of += " (never <unk>)"
        kept_line = Content.assemble(
            ("keeps ", MUTED), (f"{kept:,}", "bold"),
            (f"{of} · {'' if self.size.width < ENTROPY_WIDTH else 'entropy '}", MUTED),
            (f"{preview.entropy:.1f} → {entropy:.1f}", "bold"), (" bits", MUTED),
        )  # fmt: skip
        self.query_one("#kept", Drawing).show(lambda *_: kept_line)
        # The ratio leaves out what the rest of the sampler chain changes.
        is_alone = not settings.top_k and settings.top_p == 1 and not settings.min_p
        meaning = " as likely as at 1" if is_alone else " by temperature alone"
        ratio_line = Content.assemble(
            (name, "bold $accent"), (": ", MUTED), (f"{ratio:.2f} ×", "bold"), (meaning, MUTED)
        )
        if prob_at_one > 1 / TWICE and ratio > HALF:
            cannot = f": {format_percent(prob_at_one)} at 1, cannot double"
            ratio_line = Content.assemble((name, "bold $accent"), (cannot, MUTED))
        self.query_one("#ratio", Drawing).show(lambda *_: ratio_line)
        if self._first_view is not None and (read.text, settings) != self._first_view:
            parts = ratio >= TWICE, ratio <= HALF, settings.temperature == 1 and kept < FEW_WORDS
            for part, is_done in enumerate(parts):
                if is_done:
                    self.finish_part(part)
