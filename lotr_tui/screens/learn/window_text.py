"""Texts beside a live training: its samples, and the window of the training text that a step reads."""

from collections.abc import Sequence

from textual.content import Content
from textual.widget import Widget

from engine.config import TrainingConfig
from engine.data.dataset import Dataset
from engine.data.tokenizers.base import EOS_ID
from engine.events import Sampled
from lotr_tui.formatting import LINE_END_MARK, displayable, truncate
from lotr_tui.learn.bptt_window import window_of_step
from lotr_tui.theme import MUTED
from lotr_tui.widgets.drawing import join_fitting

TALL, VERY_TALL = 30, 42
"""Rows of the terminal from which three samples, and six, are shown."""


class SampleLines(Widget):
    """The latest samples, one line for each evaluation, the latest one last."""

    DEFAULT_CSS = """
    SampleLines { height: 1; padding: 0 1; }
    """
    HELP_LINE = "What the network writes after each evaluation, always with the same random numbers"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._samples: list[Sampled] = []

    def show(self, samples: Sequence[Sampled]) -> None:
        """Show the last samples."""
        self._samples = list(samples[-6:])
        self.refresh()

    def on_resize(self) -> None:
        """Show more samples in a higher terminal."""
        height = self.app.size.height
        self.styles.height = 6 if height >= VERY_TALL else 3 if height >= TALL else 1

    def render(self) -> Content:
        """Return one line for each sample."""
        if not self._samples:
            return Content.styled("writes   a sentence after each evaluation", MUTED)
        lines = []
        for sample in self._samples[-self.size.height :]:
            head = f"{sample.epoch:6.2f}   "
            text = " ".join(displayable(f"{sample.prompt} {sample.text}").split())
            lines.append(Content.assemble((head, MUTED), truncate(text, self.size.width - len(head))))
        return Content("\n").join(lines)


class WindowText(Widget):
    """The first row of the batch around the window of the current step, which brackets mark."""

    DEFAULT_CSS = """
    WindowText { height: 3; padding: 0 1; }
    """
    HELP_LINE = "The words that one step reads: the state comes in at [, and gradients stop there"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._content: tuple[Dataset, TrainingConfig, int] | None = None

    def show(self, dataset: Dataset, options: TrainingConfig, step: int) -> None:
        """Show the window of a step."""
        if self._content is None or self._content[2] != step:
            self._content = (dataset, options, step)
            self.refresh()

    def render(self) -> Content:
        """Return the place of the window, and the text around it."""
        if self._content is None:
            return Content("")
        return describe_window(*self._content, width=self.size.width, rows=self.size.height - 1)


def describe_window(dataset: Dataset, options: TrainingConfig, step: int, *, width: int, rows: int) -> Content:
    """Return the place of the window of a step, and the text of the first row around it."""
    window = window_of_step(step, len(dataset.train), options)
    row = dataset.train[: window.row_length]
    words = [token_text(dataset, id) for id in row[max(0, window.begin - width) : window.end + width].tolist()]
    begin = window.begin - max(0, window.begin - width)
    end = begin + window.end - window.begin
    inside = " ".join(words[begin:end])
    # Wrapped lines end before a word that does not fit, which takes some columns of each line.
    room = max(0, width * rows - len(inside) - 2 - 8 * rows)
    before, after = _fitting(words[:begin][::-1], room // 3)[::-1], _fitting(words[end:], room - room // 3)
    place = [
        f"row 1 of {options.batch_size}",
        f"words {window.begin + 1:,} to {window.end:,} of {window.row_length:,}",
        "gradients stop at [",
    ]
    if window.begin:
        before = ["…", *before]
    if window.end < window.row_length:
        after = [*after, "…"]
    return Content.assemble(
        (join_fitting(place, width), MUTED), "\n", (" ".join([*before, ""]), MUTED), ("[", "bold $accent"), inside,
        ("]", "bold $accent"), (" ".join(["", *after]), MUTED),
    )  # fmt: skip


def _fitting(words: Sequence[str], room: int) -> list[str]:
    """Return as many of the first words as fit a number of columns."""
    fitting: list[str] = []
    for word in words:
        room -= len(word) + 1
        if room < 0:
            break
        fitting.append(word)
    return fitting


def token_text(dataset: Dataset, id: int) -> str:
    """Return a word of the training text as it is displayed."""
    return LINE_END_MARK if id == EOS_ID else displayable(dataset.tokenizer.tokens[id])
