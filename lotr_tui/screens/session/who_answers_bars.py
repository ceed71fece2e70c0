"""Bars of the speakers who are likely to answer."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual import events
from textual.message import Message
from textual.strip import Strip

from engine.data.speakers import display_name
from engine.generation.turns import SpeakerProb
from lotr_tui.formatting import format_percent, truncate
from lotr_tui.session.conversation.speaker_labels import name_column_width, speaker_style
from lotr_tui.widgets.bars import bar
from lotr_tui.widgets.drawing import StripWidget
from lotr_tui.widgets.speaker_styles import speaker_classes, speaker_css

TITLE = "WHO ANSWERS"
MODEL_CHOOSES = "the model chooses"
CHOSEN_MARK = "●"
PERCENT_WIDTH = 8
"""Width in cells of a probability."""


class WhoAnswersBars(StripWidget):
    """The most likely next speakers, and the one that the user has chosen, with a mark. A click chooses a speaker."""

    HELP_LINE = "Who is likely to answer; a click chooses, a second click lets the model choose"
    DEFAULT_CSS = f"""
    WhoAnswersBars {{
        height: 7;
        padding: 1 1 0 1;
        .who-answers--title {{ text-style: bold; }}
        .who-answers--muted {{ color: $muted; text-style: $muted-style; }}
        .who-answers--bar {{ color: $accent; }}
        {speaker_css("who-answers")}
    }}
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {
        f"who-answers--{name}" for name in ("title", "muted", "bar")
    } | speaker_classes("who-answers")

    class SpeakerSelected(Message):
        """Posted when a speaker is clicked."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name
            """Name in the cast; empty to let the model choose again."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._probs: Sequence[SpeakerProb] = ()
        self._cast: Sequence[str] = ()
        self._name_width = 0
        """Width in cells of the longest name of the cast, as far as it is shown."""
        self._chosen = ""
        self._shown: list[SpeakerProb] = []

    def show(self, probs: Sequence[SpeakerProb], cast: Sequence[str], chosen: str) -> None:
        """Show the probabilities of the next speaker.

        Args:
            probs: Probabilities, the likeliest speaker first.
            cast: Cast of the model, in which the place of a speaker decides on the colour.
            chosen: Speaker whom the user has chosen to answer; empty if the model chooses.
        """
        if cast != self._cast:
            self._name_width = name_column_width(cast)
        self._probs, self._cast, self._chosen = probs, cast, chosen
        self.redraw_changes()

    def on_click(self, event: events.Click) -> None:
        """Post the clicked speaker, or "" for the one that is chosen already."""
        offset = event.get_content_offset(self)
        if offset is not None and 1 <= offset.y <= len(self._shown):
            name = self._shown[offset.y - 1].name
            self.post_message(self.SpeakerSelected("" if name == self._chosen else name))

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the lines: a title, and as many speakers as fit, the chosen one always."""
        styles = self.component_styles()
        choice = f"{display_name(self._chosen)} by your choice" if self._chosen else MODEL_CHOOSES
        title = [
            Segment(f"{TITLE}  ", styles["who-answers--title"]),
            Segment(truncate(choice, max(0, width - len(TITLE) - 2)), styles["who-answers--muted"]),
        ]
        self._shown = _shown_speakers(self._probs, self._chosen, height - 1)
        name_width = max(1, min(self._name_width, width // 3))
        highest = max((speaker.prob for speaker in self._probs), default=0.0) or 1.0
        return [Strip(title), *(self._line(each, name_width, highest, width, styles) for each in self._shown)]

    def _line(
        self, speaker: SpeakerProb, name_width: int, highest: float, width: int, styles: dict[str, Style]
    ) -> Strip:
        mark = CHOSEN_MARK if speaker.name == self._chosen else " "
        name = set_cell_size(truncate(display_name(speaker.name), name_width), name_width)
        room = max(1, width - name_width - 3 - PERCENT_WIDTH)
        return Strip(
            [
                Segment(f"{mark} ", styles["who-answers--bar"]),
                Segment(name, styles[f"who-answers--{speaker_style(speaker.name, self._cast)}"]),
                Segment(f" {bar(speaker.prob / highest, room):{room}}", styles["who-answers--bar"]),
                Segment(f"{format_percent(speaker.prob):>{PERCENT_WIDTH}}", styles[""]),
            ]
        )


def _shown_speakers(probs: Sequence[SpeakerProb], chosen: str, count: int) -> list[SpeakerProb]:
    """Return the first `count` speakers; the chosen one is the last if it is not among them."""
    shown = list(probs[: max(0, count)])
    if shown and chosen and all(speaker.name != chosen for speaker in shown):
        shown[-1:] = [speaker for speaker in probs if speaker.name == chosen] or shown[-1:]
    return shown
