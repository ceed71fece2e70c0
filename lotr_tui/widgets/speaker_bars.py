"""Names of speakers in their colours, and bars for several speakers."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.cells import cell_len
from rich.segment import Segment
from textual import events
from textual.strip import Strip

from engine.generation.turns import SpeakerProb
from lotr_tui.formatting import bar, fit_cells, format_percent, truncate
from lotr_tui.session.cast import (
    MAX_NAME_WIDTH,
    MIN_NAME_WIDTH,
    SPEAKER_STYLES,
    UNCAST_STYLE,
    shown_name,
    speaker_style,
)  # fmt: skip
from lotr_tui.widgets.drawing import StripWidget

PERCENT_WIDTH = 8  # cells of a probability


def speaker_classes(prefix: str) -> set[str]:
    """Return the component classes of all styles of speakers, such as `prefix--speaker-0`."""
    return {f"{prefix}--{style}" for style in (UNCAST_STYLE, *SPEAKER_STYLES)}


def speaker_css(prefix: str) -> str:
    colors = "".join(f".{prefix}--{style} {{ color: ${style}; }}" for style in SPEAKER_STYLES)
    return "".join(f".{name} {{ text-style: bold; }}" for name in sorted(speaker_classes(prefix))) + colors


class SpeakerBars(StripWidget):
    """A title, and a row for each speaker: a mark, the name in its colour, a bar and the probability."""

    DEFAULT_CSS = f"""
    SpeakerBars {{
        .speaker-bars--title {{ text-style: bold; }}
        .speaker-bars--muted {{ color: $muted; text-style: $muted-style; }}
        .speaker-bars--bar {{ color: $accent; }}
        {speaker_css("speaker-bars")}
    }}
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"speaker-bars--{name}" for name in ("title", "muted", "bar")
    } | speaker_classes("speaker-bars")
    TITLE: ClassVar[str]
    MARK_STYLE: ClassVar[str] = "speaker-bars--bar"

    def __init__(self, cast: Sequence[str] = (), *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._rows: Sequence[SpeakerProb] = ()  # that are shown, from the top
        self.set_cast(cast)

    def set_cast(self, cast: Sequence[str]) -> None:
        self._cast, self._name_width = cast, name_column_width(cast)

    def clicked_speaker(self, event: events.Click) -> str | None:
        offset = event.get_content_offset(self)
        return self._rows[offset.y - 1].name if offset is not None and 1 <= offset.y <= len(self._rows) else None

    def draw_rows(
        self, note: str, rows: Sequence[SpeakerProb], marks: Mapping[str, str], highest: float, width: int
    ) -> list[Strip]:
        """Return the title with a note, and a line for each speaker; a full bar stands for a probability, `highest`."""
        self._rows = rows
        styles = self.component_styles()
        name_width = max(1, min(self._name_width, width // 3))
        room = max(1, width - name_width - 3 - PERCENT_WIDTH)
        note = truncate(note, max(0, width - len(self.TITLE) - 2))
        title = Segment(f"{self.TITLE}  ", styles["speaker-bars--title"])
        lines = [[title, Segment(note, styles["speaker-bars--muted"])]]
        lines += [
            [
                Segment(f"{marks.get(speaker.name, ' ')} ", styles[self.MARK_STYLE]),
                Segment(
                    fit_cells(shown_name(speaker.name), name_width),
                    styles[f"speaker-bars--{speaker_style(speaker.name, self._cast)}"],
                ),
                Segment(f" {bar(speaker.prob / highest, room):{room}}", styles["speaker-bars--bar"]),
                Segment(f"{format_percent(speaker.prob):>{PERCENT_WIDTH}}", styles[""]),
            ]
            for speaker in rows
        ]
        return [Strip(line) for line in lines]


def name_column_width(cast: Sequence[str], model_label: str = "") -> int:
    """Return the width in cells of the column with the names of a cast, or of a model without one."""
    longest = max((cell_len(shown_name(name)) for name in cast), default=cell_len(model_label))
    return max(MIN_NAME_WIDTH, min(MAX_NAME_WIDTH, longest))
