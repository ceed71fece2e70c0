"""Tables of the figures as text: bars of next words, and sampled texts."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from lotr_tui.formatting import MISSING, SELECTED_MARK, fit_cells, format_percent, truncate
from lotr_tui.theme import MUTED
from lotr_tui.widgets.bars import bar

MAX_NAME_WIDTH, MIN_BAR_WIDTH, PERCENT_WIDTH = 12, 4, 8
MODEL_SHADE = "░"
"""Shades the part of the model's probability that the sampler chain takes away."""


@dataclass(frozen=True)
class WordBar:
    """A possible next word and its probability.

    Attributes:
        model_prob: Probability before the sampler chain, for a second column; None without a sampler chain.
        note: Text in place of the bar where it fits, such as `#812` for the rank of a word that is far below.
    """

    text: str
    prob: float
    model_prob: float | None = None
    is_marked: bool = False
    note: str = ""


def word_bars(
    title: str,
    headings: Sequence[str],
    bars: Sequence[WordBar],
    width: int,
    height: int,
    *,
    last: WordBar | None = None,
    scale: float = 0.0,
) -> Content:
    """Return a heading and one bar per word, likeliest first, as many as there are rows.

    `last` is in the last row if the rows end before it; `scale` is the probability of a full bar, 0 for the highest.
    """
    num_rows = max(1, height - 1)
    rows = list(bars[:num_rows])
    if last is not None and not any(row.is_marked for row in rows):
        rows = [*rows[: num_rows - 1], last]
    heading = "".join(each.rjust(PERCENT_WIDTH) for each in headings)
    title_width = max(0, width - cell_len(heading))
    longest = max((cell_len(row.text) for row in rows), default=0)
    name_width = max(4, min(MAX_NAME_WIDTH, longest, title_width - MIN_BAR_WIDTH - 3))
    bar_width = max(1, title_width - name_width - 3)
    scale = scale or max((max(row.prob, row.model_prob or 0) for row in bars), default=0.0) or 1.0
    lines = [Content.styled(fit_cells(title, title_width) + heading, MUTED)]
    for row in rows:
        is_removed = row.model_prob is not None and row.prob == 0
        cells = row.note if cell_len(row.note) <= bar_width else ""
        cells, shade = cells if row.note else bar(row.prob / scale, bar_width), ""
        columns = [(format_percent(row.prob) if not is_removed else MISSING, "")]
        if row.model_prob is not None:
            shade = MODEL_SHADE * (round(row.model_prob / scale * bar_width) - cell_len(cells))
            columns.insert(0, (format_percent(row.model_prob), MUTED))
        line = Content.assemble(
            (SELECTED_MARK if row.is_marked else " ", "bold $accent"),
            (fit_cells(row.text, name_width), "bold $accent" if row.is_marked else MUTED if is_removed else ""),
            " ",
            (cells, MUTED if row.note else "$accent"),
            (shade, MUTED),
            " " * (bar_width - cell_len(cells + shade) + 1),
            *((text.rjust(PERCENT_WIDTH), style) for text, style in columns),
        )
        lines.append(line)
    return Content("\n").join(lines)


@dataclass(frozen=True)
class Sample:
    """A sampled text and its label below a heading, or the one without a heading."""

    label: str
    text: str
    is_marked: bool = False
    full_label: str = ""


def sample_rows(heading: str, samples: Sequence[Sample], width: int, height: int) -> Content:
    """Return a heading if there is room, and the samples, wrapped if there is room for more than a line each."""
    if not samples or not height:
        return Content("")
    has_heading = height > len(samples)
    lines_each = max(1, (height - has_heading) // len(samples))
    labels = [sample.label if has_heading else sample.full_label or sample.label for sample in samples]
    label_width = max(map(len, labels)) + 3
    lines = [Content.styled(truncate(heading, width), MUTED)] if has_heading else []
    for sample, label in list(zip(samples, labels, strict=True))[: height - has_heading]:
        text = Content(sample.text).wrap(max(8, width - label_width))  # counts cells, unlike `textwrap`
        head = set_cell_size(f"{SELECTED_MARK if sample.is_marked else ' '}{label}", label_width)
        style = "bold $accent" if sample.is_marked else MUTED
        lines.append(Content.assemble((head, style), text[0] if text else ""))
        lines += [line.pad_left(label_width) for line in text[1:lines_each]]
    return Content("\n").join(lines)
