"""A text with each word shaded by how little it was expected."""

from typing import ClassVar, Literal

import numpy as np
from rich.style import Style
from textual.binding import Binding, BindingType
from textual.content import Content

from engine.analysis.token_scores import Reading
from lotr_tui.screens.text.layout import UNKNOWN_MARKS, Page
from lotr_tui.screens.text.view import PageText, cursor_bindings

View = Literal["network", "Kneser-Ney", "difference"]
VIEWS: tuple[View, ...] = ("network", "Kneser-Ney", "difference")

BITS = (3.0, 6.0, 10.0)
"""Between the shades of surprise: a probability of 1/8, 1/64, 1/1024."""
DIFFERENCES = (-3.0, -1.0, 1.0, 3.0)
"""Between the shades of a difference, in bits that the network saves."""

_SURPRISE = ("lens--expected", "lens--usual", "lens--surprising", "lens--astonishing")
_DIFFERENCE = ("lens--much-worse", "lens--worse", "lens--even", "lens--better", "lens--much-better")


class LensText(PageText, inherit_bindings=False):
    """Words shaded in steps of bits, each step with a cue that is no colour."""

    DEFAULT_CSS = """
    LensText { overflow-y: scroll; }
    LensText > .lens--unread { color: $foreground 60%; }
    LensText > .lens--expected { color: $foreground; text-style: dim; }
    LensText > .lens--usual { color: $foreground; }
    LensText > .lens--surprising { color: $foreground; background: $accent 20%; text-style: underline; }
    LensText > .lens--astonishing { color: $foreground; background: $accent 50%; text-style: bold underline; }
    LensText > .lens--even { color: $foreground; text-style: dim; }
    LensText > .lens--better { color: $foreground; background: $success 20%; text-style: underline; }
    LensText > .lens--much-better { color: $foreground; background: $success 45%; text-style: bold underline; }
    LensText > .lens--worse { color: $foreground; background: $error 20%; }
    LensText > .lens--much-worse { color: $foreground; background: $error 45%; text-style: bold; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"lens--unread", *_SURPRISE, *_DIFFERENCE}
    BINDINGS: ClassVar[list[BindingType]] = [
        *cursor_bindings("lens-text"),
        Binding("n", "surprise(1)", "surprise", id="lens-text.next", tooltip="The next word of the strongest shade"),
        Binding(
            "p", "surprise(-1)", "surprise before", id="lens-text.previous", show=False, tooltip="The strongest before"
        ),
    ]

    def __init__(self, hint: str, *, id: str | None = None) -> None:
        """Show `hint` where there is no text."""
        super().__init__(hint, id=id)
        self._network: Reading | None = None
        self._kneser_ney: Reading | None = None
        self._view: View = "network"
        self._seen = 0  # words read when last painted

    # What is shown

    def show_reading(self, page: Page, network: Reading, *, cursor: int | None = None) -> None:
        """Another text, of which `network` is the reading; the cursor stays where it can."""
        self._network, self._kneser_ney = network, None
        self.show(page, self.cursor if cursor is None else cursor)
        self.read_on()

    def compare(self, kneser_ney: Reading) -> None:
        """The other model's reading of the same text."""
        self._kneser_ney = kneser_ney
        self.read_on()

    def read_on(self) -> None:
        """The readings have gone on: paint what of it is seen."""
        first, last = self._seen_words()
        done = min((reading.done for reading in self._shown_readings()), default=0)
        if (self._seen < last and done > first) or done < self._seen:
            self.refresh()
        self._seen = done

    @property
    def view(self) -> View:
        """What the shades mean."""
        return self._view

    @view.setter
    def view(self, view: View) -> None:
        self._view = view
        self._seen = 0
        self.refresh()

    def legend(self) -> Content:
        """The shades in words, each in its own."""
        if self._view == "difference":
            strong, weak = DIFFERENCES[-1], DIFFERENCES[-2]
            texts = [f"Kneser-Ney by {strong:g}", f"by {weak:g}", "even", f"by {weak:g}", f"network by {strong:g} bits"]
            parts = list(zip(texts, _DIFFERENCE, strict=True))
        else:
            low, middle, high = BITS
            texts = [f"under {low:g} bits", f"{low:g} to {middle:g}", f"{middle:g} to {high:g}", f"over {high:g}"]
            parts = list(zip(texts, _SURPRISE, strict=True))
        parts.append(("unknown".join(UNKNOWN_MARKS), "page-text--unknown"))
        between: list[Content] = []
        for text, name in parts:
            between += [Content.styled(text, self.get_visual_style(name)), Content("  ")]
        return Content.assemble(*between[:-1])

    # Painting

    def style_names(self, index: int) -> list[str]:
        """The shade of a word."""
        return [self._shade(index)]

    def word_style(self, index: int) -> Style:
        """The cursor takes nothing of the shade away."""
        style = super().word_style(index)
        return style + Style(reverse=True) if index == self.cursor else style

    def _shade(self, index: int) -> str:
        """The component class of a word."""
        readings = self._shown_readings()
        if self.page.words.unknown[index]:
            return "page-text--unknown"
        if not readings or any(index >= reading.done for reading in readings):
            return "lens--unread"
        bits = [-float(reading.scores[index]) / np.log(2) for reading in readings]
        if len(bits) == 2:
            return _DIFFERENCE[int(np.digitize(bits[1] - bits[0], DIFFERENCES))]
        return _SURPRISE[int(np.digitize(bits[0], BITS))]

    def _shown_readings(self) -> list[Reading]:
        """Those that the shades are of; none where one of them is not there."""
        wanted = {
            "network": [self._network],
            "Kneser-Ney": [self._kneser_ney],
            "difference": [self._network, self._kneser_ney],
        }[self._view]
        there = [reading for reading in wanted if reading is not None]
        return there if len(there) == len(wanted) else []

    def _seen_words(self) -> tuple[int, int]:
        top = min(self.scroll_offset.y, len(self._starts) - 1)
        bottom = min(top + max(1, self.size.height), len(self._starts)) - 1
        return self._words_of(top)[0], self._words_of(bottom)[1]

    # The cursor

    def action_surprise(self, direction: int) -> None:
        """To the next word of the strongest shade, or the one before."""
        readings = self._shown_readings()
        if not readings:
            return
        done = min(reading.done for reading in readings)
        bits = [-reading.scores[:done] / np.log(2) for reading in readings]
        strong = np.abs(bits[1] - bits[0]) >= DIFFERENCES[-1] if len(bits) == 2 else bits[0] >= BITS[-1]
        found = np.flatnonzero(strong & ~readings[0].words.unknown[:done])
        found = found[found > self.cursor] if direction > 0 else found[found < self.cursor][::-1]
        if len(found):
            self.move_to(int(found[0]))
