"""Sampled continuations of one text, a row or a few for each."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import set_cell_size
from textual.content import Content
from textual.widget import Widget

from lotr_tui.formatting import SELECTED_MARK, truncate
from lotr_tui.theme import MUTED


@dataclass(frozen=True)
class Sample:
    """A continuation and its label."""

    label: str
    """Label below a heading."""
    text: str
    is_marked: bool = False
    full_label: str = ""
    """Label without a heading; "" for the same one."""


class SampleRows(Widget):
    """A heading if there is room, and below it the samples, wrapped if there is room for more than a line each."""

    HELP_LINE = "Texts sampled with the seed that is shown; ¶ is the end of a line"
    DEFAULT_CSS = """
    SampleRows { height: auto; padding: 0 1; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.samples: tuple[Sample, ...] = ()
        self._heading = ""

    def show(self, heading: str, samples: Sequence[Sample]) -> None:
        """Show samples below a heading."""
        self._heading, self.samples = heading, tuple(samples)
        self.refresh()

    def render(self) -> Content:
        """Return the heading and the samples."""
        width, height = self.content_size
        if not self.samples or not height:
            return Content("")
        has_heading = height > len(self.samples)
        lines_each = max(1, (height - has_heading) // len(self.samples))
        labels = [sample.label if has_heading else sample.full_label or sample.label for sample in self.samples]
        label_width = max(map(len, labels)) + 3
        lines = [Content.styled(truncate(self._heading, width), MUTED)] if has_heading else []
        for sample, label in list(zip(self.samples, labels, strict=True))[: height - has_heading]:
            text = Content(sample.text).wrap(max(8, width - label_width))  # counts cells, unlike `textwrap`
            lines.append(
                Content.assemble(
                    (
                        set_cell_size(f"{SELECTED_MARK if sample.is_marked else ' '}{label}", label_width),
                        "bold $accent" if sample.is_marked else MUTED,
                    ),
                    text[0] if text else "",
                )
            )
            lines += [line.pad_left(label_width) for line in text[1:lines_each]]
        return Content("\n").join(lines)
