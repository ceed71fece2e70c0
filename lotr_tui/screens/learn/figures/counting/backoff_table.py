"""Table of the back-off: one row per context, the longest first, and the probability as their sum."""

from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from textual.content import Content
from textual.widget import Widget

from engine.models.ngram import Backoff, BackoffLevel
from lotr_tui.formatting import MISSING, format_percent, truncate
from lotr_tui.theme import MUTED

TIMES, BEFORE = "×", "‹"
"""Marks of a count: occurrences, and different words seen before an n-gram."""
LEGEND = f"{TIMES} times  {BEFORE} different words before"
LONG_LEGEND = f"{LEGEND}  adds = own × the rests above"
NEAR_START = "too near the start"
"""Row of a context that would begin before the line."""
COUNT_WIDTH = 8
OWN_WIDTH, REST_WIDTH, ADDS_WIDTH = 8, 6, 8
NUM_ROWS = 8
"""Headings, the contexts of a 5-gram, the uniform distribution and the sum."""
NUM_WIDTHS = COUNT_WIDTH + OWN_WIDTH + REST_WIDTH + ADDS_WIDTH


@dataclass(frozen=True)
class ExplainedWord:
    """A word, the names of its contexts, and its back-off."""

    word: str
    contexts: tuple[str, ...]
    """Words of each context, in the order of the levels."""
    backoff: Backoff
    order: int
    """Order of the model."""


class BackoffTable(Widget):
    """Counts, discounted probability, back-off weight and part in the sum, for each context of a word."""

    HELP_LINE = "own + rest × the probability in the row below; adds: own × the rests above"
    DEFAULT_CSS = """
    BackoffTable { height: 8; padding: 0 1; }
    """

    def __init__(self, *, id: str) -> None:
        super().__init__(id=id)
        self.explained: ExplainedWord | None = None

    def show(self, explained: ExplainedWord) -> None:
        """Show the back-off of a word."""
        self.explained = explained
        self.refresh()

    def render(self) -> Content:
        """Return the rows: headings, contexts, the uniform distribution, the sum."""
        if self.explained is None:
            return Content("")
        width = self.content_size.width
        backoff, word = self.explained.backoff, self.explained.word
        word_heading = truncate(f"+{word}", max(COUNT_WIDTH - 1, min(14, width - NUM_WIDTHS - 20)))
        word_width = max(COUNT_WIDTH, cell_len(word_heading) + 1)
        context_width = max(6, width - NUM_WIDTHS - word_width)
        headings = _numbers(word_width, "seen", word_heading, "own", "rest", "adds")
        lines = [Content.styled(set_cell_size("after", context_width) + headings, MUTED)]
        order = self.explained.order
        lines += [Content("")] * (NUM_ROWS - 3 - order)  # a row does not move with the order
        lines += [Content.styled(NEAR_START, MUTED)] * (order - len(backoff.levels))
        for level, context, part in zip(backoff.levels, self.explained.contexts, backoff.parts, strict=False):
            name = _context_name(context, context_width - 1)
            numbers = _level_numbers(level, part, word_width)
            style = MUTED if not level.context_count else ""
            lines.append(Content.assemble((set_cell_size(name, context_width), style), (numbers, style)))
        uniform = _numbers(
            word_width, "", "", format_percent(backoff.uniform_prob), "", format_percent(backoff.parts[-1])
        )
        lines.append(Content(set_cell_size("any word", context_width) + uniform))
        total = format_percent(backoff.prob)
        label = f"= P({truncate(word, 14)})"
        max_width = max(0, width - cell_len(label) - ADDS_WIDTH - 1)
        legend = LONG_LEGEND if cell_len(LONG_LEGEND) <= max_width else truncate(LEGEND, max_width)
        gap = width - cell_len(legend) - cell_len(label) - ADDS_WIDTH
        lines.append(
            Content.assemble((legend, MUTED), " " * gap, (label, ""), (total.rjust(ADDS_WIDTH), "bold $accent"))
        )
        return Content("\n").join(lines)


def describe_counts(context: str, word: str, counted: BackoffLevel, width: int) -> Content:
    """Return how often a context was read, and how often a word came next: the counts before any smoothing."""
    ratio = counted.count / max(1, counted.context_count)
    numbers: list[str | tuple[str, str]] = [
        (f"{counted.context_count:,}", "bold"),
        (" times, " if context else " words, ", MUTED),
        (f"{counted.count:,}", "bold"),
        (" before " if context else " are ", MUTED),
        f"“{truncate(word, 14)}”",
        (" = ", MUTED),
        (format_percent(ratio), "bold"),
    ]
    rest = Content.assemble(*numbers)
    name = f"“{_context_name(context, width - rest.cell_length - 11)}” " if context else ""
    return Content.assemble(("counted ", MUTED), name, rest)


def _context_name(context: str, width: int) -> str:
    """Return the end of a context that fits `width` cells."""
    if not context:
        return "anything"
    if cell_len(context) <= width:
        return context
    end = context[-max(1, width - 1) :]
    while len(end) > 1 and cell_len(end) >= width:
        end = end[1:]
    return f"…{end}"


def _numbers(word_width: int, seen: str, count: str, own: str, rest: str, adds: str) -> str:
    return (
        seen.rjust(COUNT_WIDTH)
        + count.rjust(word_width)
        + own.rjust(OWN_WIDTH)
        + rest.rjust(REST_WIDTH)
        + adds.rjust(ADDS_WIDTH)
    )


def _level_numbers(level: BackoffLevel, part: float, word_width: int) -> str:
    mark = BEFORE if level.counts_tokens_before else TIMES
    rest = format_percent(level.backoff_weight)
    if not level.context_count:
        return _numbers(word_width, "never", MISSING, MISSING, rest, MISSING)
    own, adds = (format_percent(level.discounted_prob), format_percent(part)) if level.count else (MISSING, MISSING)
    return _numbers(word_width, f"{level.context_count:,}{mark}", f"{level.count:,}{mark}", own, rest, adds)
