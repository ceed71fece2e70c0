"""One prompt and one seed at every evaluation: the words get better as you watch."""

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from lotr_tui.theme import MUTED
from lotr_tui.training_view import TrainingView


class Samples(VerticalScroll):
    """A text an evaluation, latest last, each with its epoch and validation perplexity."""

    DEFAULT_CSS = """
    Samples {
        padding: 0 1;
        height: 1fr;
        scrollbar-size-vertical: 1;
        scrollbar-background: $background;
        scrollbar-color: $border;
    }
    Samples > Static { margin-bottom: 1; }
    """

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._shown = 0

    def compose(self) -> ComposeResult:
        """What will stand here."""
        yield Static(
            Content.styled("After every evaluation the model continues one prompt, always with the same seed.", MUTED),
            id="samples-title",
            markup=False,
        )

    def on_mount(self) -> None:
        """Follow the end."""
        self.anchor()

    def show(self, view: TrainingView) -> None:
        """Add the samples that are new."""
        perplexities = {event.step: event.valid_perplexity for event in view.evaluations}
        new = view.samples[self._shown :]
        self._shown = len(view.samples)
        for sample in new:
            perplexity = perplexities.get(sample.step)
            figures = f"epoch {sample.epoch:.1f}" + (f" · valid {perplexity:.1f}" if perplexity else "")
            text = Content.assemble((figures, MUTED), "\n", (sample.prompt, "bold"), " ", sample.text)
            self.mount(Static(text, markup=False))
