"""Bars of the speakers who are likely to say a line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual import events
from textual.message import Message
from textual.strip import Strip

from engine.generation.turns import SpeakerProb
from lotr_tui.screens.lens.who.evidence import MINUS, SpeakerPair
from lotr_tui.widgets.speaker_bars import SpeakerBars

MAX_SPEAKERS = 8
WRITTEN_MARK = "●"
"""Mark of the speaker whose name is written before the line."""


class WhoWouldSayBars(SpeakerBars):
    """The likeliest speakers of a line. A click on a speaker compares him with the one who leads."""

    HELP_LINE = "Who is likely to say it; a click compares with the first"
    TITLE: ClassVar[str] = "WHO WOULD SAY THIS"
    MARK_STYLE: ClassVar[str] = "speaker-bars--title"

    @dataclass
    class SpeakerClicked(Message):
        """Posted when a speaker is clicked."""

        name: str

    def __init__(self, cast: Sequence[str], *, id: str | None = None) -> None:
        super().__init__(cast, id=id)
        self._ranking: Sequence[SpeakerProb] = ()
        self._marks: dict[str, str] = {}
        self._note = ""

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
        name = self.clicked_speaker(event)
        if name is not None:
            self.post_message(self.SpeakerClicked(name))

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the title and the bars, whose scale is from 0 to 100 %."""
        rows = shown_speakers(self._ranking, list(self._marks), min(MAX_SPEAKERS, height - 1))
        num_others = len(self._ranking) - len(rows)
        others = f"and {num_others} others" if num_others > 0 else ""
        if len(f"{self.TITLE}  {others}") > width:
            others = ""
        return self.draw_rows(self._note or others, rows, self._marks, 1.0, width)


def shown_speakers(ranking: Sequence[SpeakerProb], needed: Sequence[str], count: int) -> list[SpeakerProb]:
    """Return the first `count` speakers; the `needed` ones replace the last of the others."""
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
