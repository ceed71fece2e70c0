"""The sample timeline: one prompt and one seed at every evaluation; the words get better as one goes along."""

from bisect import bisect_left, bisect_right
from operator import attrgetter

from textual.content import Content
from textual.widget import Widget

from engine.errors import printable
from engine.events import Sampled
from lotr_tui.formatting import perplexity
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.theme import MUTED

EXPLANATION = "After every evaluation the model continues one prompt, always with the same seed."
step_of = attrgetter("step")


class SampleTimeline(Widget):
    """A sample in full, where it stands among all, and those before it."""

    DEFAULT_CSS = "SampleTimeline { padding: 0 1; height: 1fr; }"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._view = TrainingView()
        self._place: int | None = None
        self._told: tuple[object, ...] = ()

    def show(self, view: TrainingView) -> None:
        """Show the sample at the place in `view`."""
        self._view = view
        self._refresh()

    def mark(self, place: int | None) -> None:
        """Show the last sample up to this update; None: the latest."""
        self._place = place
        self._refresh()

    def neighbour(self, steps: int) -> int | None:
        """The update of the sample so many before or after the place; None: the latest, or one after it."""
        samples = self._view.samples
        if not samples:
            return None
        if self._place is None:
            number = len(samples) - 1 + steps
        elif steps > 0:
            number = bisect_right(samples, self._place, key=step_of) - 1 + steps
        else:
            number = bisect_left(samples, self._place, key=step_of) + steps
        return samples[max(0, number)].step if number < len(samples) - 1 else None

    def _refresh(self) -> None:
        """Only what changed goes to the terminal."""
        number = self._number()
        told = (number, len(self._view.samples), self._view.samples[number] if number is not None else None)
        if told != self._told:
            self._told = told
            self.refresh()

    def _number(self) -> int | None:
        """Of the sample to show; None: there is none."""
        samples = self._view.samples
        if not samples:
            return None
        return len(samples) - 1 if self._place is None else max(0, bisect_right(samples, self._place, key=step_of) - 1)

    def render(self) -> Content:
        """Where it stands, the sample, and in grey as many of those before it as there is room for."""
        number = self._number()
        if number is None:
            return Content.styled(EXPLANATION, MUTED)
        samples, (width, height) = self._view.samples, self.content_size
        chosen = samples[number]
        follows = "latest" if self._place is None else f"{number + 1} of {len(samples)}"
        seed = f"seed {chosen.seed} · temperature {chosen.temperature:g}"
        lines = [
            Content.assemble((self._when(chosen), "bold"), (f"  {follows}", MUTED)),
            self._scrubber(number, len(samples), width),
            Content.assemble((printable(chosen.prompt), "bold"), " ", printable(chosen.text)),
            Content.styled(seed, MUTED),
        ]
        for sample in samples[max(0, number - height) : number][::-1]:
            prompt = "" if sample.prompt == chosen.prompt else f"{printable(sample.prompt)} … "
            text = f"{prompt}{printable(sample.text)}"
            lines += [Content(""), Content.styled(self._when(sample), MUTED), Content.styled(text, MUTED)]
        return Content("\n").join(lines)

    def _when(self, sample: Sampled) -> str:
        evaluations = self._view.evaluations
        number = bisect_left(evaluations, sample.step, key=step_of)
        found = evaluations[number] if number < len(evaluations) else None
        valid = f" · valid {perplexity(found.valid_perplexity)}" if found and found.step == sample.step else ""
        best = " · best" if found and found is self._view.best else ""
        return f"epoch {sample.epoch:.1f}{valid}{best}"

    def _scrubber(self, number: int, count: int, width: int) -> Content:
        room = max(3, min(60, width))
        place = round(number / max(1, count - 1) * (room - 1)) if count > 1 else room - 1
        return Content.assemble(("─" * place, MUTED), ("●", "$accent"), ("─" * (room - 1 - place), MUTED))
