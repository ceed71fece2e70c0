"""Bars of the speakers who are likely to say a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from engine.data.speakers import display_name
from engine.generation.turns import SpeakerProb
from lotr_tui.formatting import format_percent, truncate
from lotr_tui.screens.lens.who.evidence import MINUS, SpeakerPair
from lotr_tui.session.conversation.speaker_labels import MAX_NAME_WIDTH, speaker_style
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import StripWidget
from lotr_tui.widgets.speaker_styles import speaker_classes, speaker_css

TITLE = "WHO WOULD SAY THIS"
MAX_SPEAKERS = 8
WRITTEN_MARK = "●"
"""Mark of the speaker whose name is written before the line."""
PERCENT_WIDTH = 8


class SpeakerBars(StripWidget):
    """The likeliest speakers of a line. A click on a speaker compares him with the one who leads."""

    HELP_LINE = "Who is likely to say the line; a click compares a speaker with the first"
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

    @dataclass
    class SpeakerClicked(Message):
        """Posted when a speaker is clicked."""

        name: str

    def __init__(self, cast: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._cast = cast
        self._ranking: Sequence[SpeakerProb] = ()
        self._marks: dict[str, str] = {}
        self._note = ""
        self._shown: list[SpeakerProb] = []

    def show(self, ranking: Sequence[SpeakerProb], written: str, pair: SpeakerPair | None, note: str = "") -> None:
        """Show the likeliest speakers, and always the one whose name is `written` and the pair that is compared.

        The title has a `note`, or else the number of speakers that are not shown.
        """
        self._ranking, self._note = ranking, note
        self._marks = {written: WRITTEN_MARK} if written else {}
        if pair is not None:
            self._marks |= {pair.first: "+", pair.second: MINUS}
        self.redraw_changes()

    def on_click(self, event: events.Click) -> None:
        """Post the clicked speaker."""
        offset = event.get_content_offset(self)
        if offset is not None and 1 <= offset.y <= len(self._shown):
            self.post_message(self.SpeakerClicked(self._shown[offset.y - 1].name))

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the title and the bars, whose scale is from 0 to 100 %."""
        styles = self.component_styles()
        self._shown = shown_speakers(self._ranking, list(self._marks), min(MAX_SPEAKERS, height - 1))
        num_others = len(self._ranking) - len(self._shown)
        others = self._note or (f"and {num_others} others" if num_others > 0 else "")
        title = [
            Segment(TITLE, styles["speaker-bars--title"]),
            Segment(truncate(f"  {others}", max(0, width - len(TITLE))), styles["speaker-bars--muted"]),
        ]
        longest = max((cell_len(display_name(name)) for name in self._cast), default=0)
        name_width = max(1, min(MAX_NAME_WIDTH, longest, width // 3))
        return [Strip(title), *(self._line(speaker, name_width, width, styles) for speaker in self._shown)]

    def _line(self, speaker: SpeakerProb, name_width: int, width: int, styles: dict[str, Style]) -> Strip:
        name = set_cell_size(truncate(display_name(speaker.name), name_width), name_width)
        room = max(1, width - name_width - 3 - PERCENT_WIDTH)
        return Strip(
            [
                Segment(f"{self._marks.get(speaker.name, ' ')} ", styles["speaker-bars--title"]),
                Segment(name, styles[f"speaker-bars--{speaker_style(speaker.name, self._cast)}"]),
                Segment(f" {bar(speaker.prob, room):{room}}", styles["speaker-bars--bar"]),
                Segment(f"{format_percent(speaker.prob):>{PERCENT_WIDTH}}", styles[""]),
            ]
        )


def shown_speakers(ranking: Sequence[SpeakerProb], needed: Sequence[str], count: int) -> list[SpeakerProb]:
    """Return the first `count` speakers; those that are `needed` replace the last of the others."""
    if count <= 0:
        return []
    first = {speaker.name for speaker in ranking[:count]}
    missing = [speaker for speaker in ranking[count:] if speaker.name in needed]
    kept = [speaker for speaker in ranking if speaker.name in first]
    for _ in missing:
        removable = [speaker for speaker in kept if speaker.name not in needed]
        if removable:
            kept.remove(removable[-1])
    return [*kept, *missing][:count]
