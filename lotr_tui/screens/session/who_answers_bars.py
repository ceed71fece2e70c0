"""Bars of the speakers who are likely to answer."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.message import Message
from textual.strip import Strip

from engine.data.speakers import display_name
from engine.generation.turns import SpeakerProb
from lotr_tui.session.cast import MODEL_CHOOSES
from lotr_tui.widgets.speaker_bars import SpeakerBars

CHOSEN_MARK = "●"


class WhoAnswersBars(SpeakerBars):
    """The most likely next speakers, and the one that the user has chosen, with a mark. A click chooses a speaker."""

    HELP_LINE = "Who is likely to answer; a click chooses, or undoes that"
    DEFAULT_CSS = "WhoAnswersBars { height: 7; padding: 1 1 0 1; }"
    TITLE: ClassVar[str] = "WHO ANSWERS"

    class SpeakerSelected(Message):
        """Posted when a speaker is clicked."""

        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name
            """Name in the cast; empty to let the model choose again."""

    def __init__(self, *, id: str | None = None) -> None:
        super().__init__(id=id)
        self._probs: Sequence[SpeakerProb] = ()
        self._chosen = ""

    def show(self, probs: Sequence[SpeakerProb], cast: Sequence[str], chosen: str) -> None:
        """Show the probabilities of the next speaker.

        Args:
            probs: Probabilities, the likeliest speaker first.
            cast: Cast of the model, in which the place of a speaker decides on the colour.
            chosen: Speaker whom the user has chosen to answer; empty if the model chooses.
        """
        if cast != self._cast:
            self.set_cast(cast)
        self._probs, self._chosen = probs, chosen
        self.redraw_changes()

    def on_click(self, event: events.Click) -> None:
        """Post the clicked speaker, or "" for the one that is chosen already."""
        name = self.clicked_speaker(event)
        if name is not None:
            self.post_message(self.SpeakerSelected("" if name == self._chosen else name))

    def draw(self, width: int, height: int) -> list[Strip]:
        """Return the lines: a title, and as many speakers as fit, the chosen one always."""
        choice = f"{display_name(self._chosen)} by your choice" if self._chosen else MODEL_CHOOSES
        rows = _shown_speakers(self._probs, self._chosen, height - 1)
        highest = max((speaker.prob for speaker in self._probs), default=0.0) or 1.0
        return self.draw_rows(choice, rows, {self._chosen: CHOSEN_MARK}, highest, width)


def _shown_speakers(probs: Sequence[SpeakerProb], chosen: str, count: int) -> list[SpeakerProb]:
    """Return the first `count` speakers; the chosen one is the last if it is not among them."""
    shown = list(probs[: max(0, count)])
    if shown and chosen and all(speaker.name != chosen for speaker in shown):
        shown[-1:] = [speaker for speaker in probs if speaker.name == chosen] or shown[-1:]
    return shown
