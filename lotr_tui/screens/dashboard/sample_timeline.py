"""Samples of a training: the same prompt continued with the same seed at every evaluation."""

from bisect import bisect_left, bisect_right
from operator import attrgetter

from textual.content import Content
from textual.widget import Widget

from engine.errors import printable
from engine.events import Sampled
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.theme import MUTED

EXPLANATION = "After every evaluation, the model continues the same prompt with the same seed."
get_step = attrgetter("step")


class SampleTimeline(Widget):
    """One sample with its position among all samples, and below it the samples before."""

    DEFAULT_CSS = "SampleTimeline { padding: 0 1; height: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = TrainingView()
        self._cursor_step: int | None = None
        self._last_shown: tuple[object, ...] = ()

    def show(self, view: TrainingView) -> None:
        """Show the sample of `view` at the cursor."""
        self._view = view
        self._refresh_if_changed()

    def set_cursor(self, step: int | None) -> None:
        """Show the last sample up to an update; None follows the latest sample."""
        self._cursor_step = step
        self._refresh_if_changed()

    def adjacent_sample_step(self, offset: int) -> int | None:
        """Return the update of the sample `offset` samples after the cursor; None for the latest sample or later."""
        samples = self._view.samples
        if not samples:
            return None
        if self._cursor_step is None:
            index = len(samples) - 1 + offset
        elif offset > 0:
            index = bisect_right(samples, self._cursor_step, key=get_step) - 1 + offset
        else:
            index = bisect_left(samples, self._cursor_step, key=get_step) + offset
        return samples[max(0, index)].step if index < len(samples) - 1 else None

    def _refresh_if_changed(self) -> None:
        index = self._sample_index()
        shown = (index, len(self._view.samples), None if index is None else self._view.samples[index])
        if shown != self._last_shown:
            self._last_shown = shown
            self.refresh()

    def _sample_index(self) -> int | None:
        """Return the index of the sample at the cursor, or None if there are no samples."""
        samples = self._view.samples
        if not samples:
            return None
        if self._cursor_step is None:
            return len(samples) - 1
        return max(0, bisect_right(samples, self._cursor_step, key=get_step) - 1)

    def render(self) -> Content:
        """Return the sample with its heading, and as many earlier samples as fit."""
        index = self._sample_index()
        if index is None:
            return Content.styled(EXPLANATION, MUTED)
        samples, (width, height) = self._view.samples, self.content_size
        sample = samples[index]
        position = "latest" if self._cursor_step is None else f"{index + 1} of {len(samples)}"
        lines = [
            Content.assemble((self._heading(sample), "bold"), (f"  {position}", MUTED)),
            _scrubber(index, len(samples), width),
            Content.assemble((printable(sample.prompt), "bold"), " ", printable(sample.text)),
            Content.styled(f"seed {sample.seed} · temperature {sample.temperature:g}", MUTED),
        ]
        for earlier in samples[max(0, index - height) : index][::-1]:
            prompt = "" if earlier.prompt == sample.prompt else f"{printable(earlier.prompt)} … "
            text = f"{prompt}{printable(earlier.text)}"
            lines += [Content(""), Content.styled(self._heading(earlier), MUTED), Content.styled(text, MUTED)]
        return Content("\n").join(lines)

    def _heading(self, sample: Sampled) -> str:
        evaluations = self._view.evaluations
        index = bisect_left(evaluations, sample.step, key=get_step)
        if index == len(evaluations) or evaluations[index].step != sample.step:
            return f"epoch {sample.epoch:.1f}"
        evaluation = evaluations[index]
        best = " · best" if evaluation is self._view.best else ""
        return f"epoch {sample.epoch:.1f} · valid {self._view.unit.format(evaluation.valid_perplexity)}{best}"


def _scrubber(index: int, count: int, width: int) -> Content:
    """Return a line with a dot at the position of a sample."""
    width = max(3, width)
    dot = round(index / (count - 1) * (width - 1)) if count > 1 else width - 1
    return Content.assemble(("─" * dot, MUTED), ("●", "$accent"), ("─" * (width - 1 - dot), MUTED))
