"""Texts beside a live training: its samples, and the window of the training text that a step reads."""

from collections.abc import Sequence

from rich.cells import cell_len
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
NARROW = 70
"""Columns of the terminal below which the words of a window need three rows."""
HEAD = "reads  "
"""Start of the text around a window that no line above describes."""


class SampleLines(Widget):
    """The latest samples, one line for each evaluation, the latest one last."""

    DEFAULT_CSS = """
    SampleLines { height: 1; padding: 0 1; }
    """
    HELP_LINE = "What the network writes after each evaluation, always with the same seed"

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
    """The first row of the batch around the window of the current step, which brackets mark.

    A low terminal has no room for the line that says where the window is.
    """

    DEFAULT_CSS = """
    WindowText { height: 2; padding: 0 1; }
    """
    HELP_LINE = "Words that one step reads: the state comes in at [, gradients stop there"

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._content: tuple[Dataset, TrainingConfig, int] | None = None

    def show(self, dataset: Dataset, options: TrainingConfig, step: int) -> None:
        """Show the window of a step."""
        if self._content is None or self._content[2] != step:
            self._content = (dataset, options, step)
            self.refresh()

    def on_resize(self) -> None:
        """Show the place of the window in a higher terminal, and a third row of text in a narrow one."""
        self.styles.height = 3 if self.app.size.height >= TALL or self.app.size.width < NARROW else 2

    def render(self) -> Content:
        """Return the place of the window, and the text around it."""
        if self._content is None:
            return Content("")
        has_place = self.app.size.height >= TALL
        rows = max(1, self.size.height - has_place)
        return describe_window(*self._content, width=self.size.width, rows=rows, has_place=has_place)


def describe_window(
    dataset: Dataset, options: TrainingConfig, step: int, *, width: int, rows: int, has_place: bool
) -> Content:
    """Return the text of the first row around the window of a step, with the place of the window above or not."""
    window = window_of_step(step, len(dataset.train), options)
    row = dataset.train[: window.row_length]
    words = [token_text(dataset, id) for id in row[max(0, window.begin - width) : window.end + width].tolist()]
    begin = window.begin - max(0, window.begin - width)
    end = begin + window.end - window.begin
    inside = " ".join(words[begin:end])
    # Wrapped lines end before a word that does not fit, which takes some columns of each line.
    room = max(0, width * rows - cell_len(inside) - 2 - 8 * rows - (0 if has_place else len(HEAD)))
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
    head = f"{join_fitting(place, width)}\n" if has_place else HEAD
    return Content.assemble(
        (head + " ".join([*before, ""]), MUTED),
        ("[", "bold $accent"), inside, ("]", "bold $accent"), (" ".join(["", *after]), MUTED),
    )  # fmt: skip


def _fitting(words: Sequence[str], room: int) -> list[str]:
    """Return as many of the first words as fit a number of columns."""
    fitting: list[str] = []
    for word in words:
        room -= cell_len(word) + 1
        if room < 0:
            break
        fitting.append(word)
    return fitting


def token_text(dataset: Dataset, id: int) -> str:
    """Return a word of the training text as it is displayed."""
    return LINE_END_MARK if id == EOS_ID else displayable(dataset.tokenizer.tokens[id])
