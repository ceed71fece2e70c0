"""The dark and the light theme, and a filter for terminals without colour."""

from functools import lru_cache
from typing import Any

from rich.color import Color as RichColor
from rich.color import ColorType
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

MUTED = "$foreground 60%"
"""Colour of secondary text."""

_COLORS = {
    "primary": ("#d9a648", "#85580c"),
    "secondary": ("#7d8a73", "#5d6b52"),
    "accent": ("#d9a648", "#85580c"),
    "foreground": ("#d8d4c8", "#2d2b23"),
    "background": ("#14150f", "#faf7ee"),
    "surface": ("#14150f", "#faf7ee"),
    "panel": ("#1e2018", "#efeadb"),
    "success": ("#8fb573", "#4b6f2f"),
    "warning": ("#d9a648", "#85580c"),
    "error": ("#d9715f", "#a8321f"),
}
"""Colours of the dark and of the light theme."""
_VARIABLES = {
    "footer-background": ("#14150f", "#faf7ee"),
    "footer-key-foreground": ("#d9a648", "#85580c"),
    "footer-description-foreground": ("#8b8c7e", "#6f6b5d"),
    "border": ("#3a3d31", "#cfc8b4"),
    "block-cursor-background": ("#d9a648", "#85580c"),
    "block-cursor-foreground": (None, "#faf7ee"),
    "input-selection-background": ("#d9a648 35%", "#85580c 30%"),
    "scrollbar": ("#3a3d31", "#cfc8b4"),
    "scrollbar-hover": ("#55594a", "#b3ab93"),
    "scrollbar-active": ("#d9a648", "#85580c"),
    "scrollbar-background": ("#14150f", "#faf7ee"),
    "scrollbar-background-hover": ("#14150f", "#faf7ee"),
    "scrollbar-background-active": ("#14150f", "#faf7ee"),
    "scrollbar-corner-color": ("#14150f", "#faf7ee"),
}
"""Variables of the dark and of the light theme; None keeps the one of Textual."""


def _make_theme(name: str, *, dark: bool) -> Theme:
    column = 0 if dark else 1
    colors: dict[str, Any] = {color: pair[column] for color, pair in _COLORS.items()}
    variables = {variable: text for variable, pair in _VARIABLES.items() if (text := pair[column]) is not None}
    return Theme(name, dark=dark, variables=variables, **colors)


SHIRE = _make_theme("shire", dark=True)
SHIRE_LIGHT = _make_theme("shire-light", dark=False)

_DEFAULT_COLORS = Style.from_color(RichColor.default(), RichColor.default())


class ColorlessFilter(LineFilter):
    """Filter that removes all colours; text with a background colour is reversed unless it is underlined.

    For NO_COLOR with an ANSI theme: Textual's monochrome filter counts the terminal's default colours as black, and
    would write black on black.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """Return the segments without colours."""
        return [Segment(text, style and _remove_colors(style), control) for text, style, control in segments]


@lru_cache(1024)
def _remove_colors(style: Style) -> Style:
    has_background = style.bgcolor is not None and style.bgcolor.type is not ColorType.DEFAULT
    # Underlined text stands out already, and stays different from the reversed token under a cursor.
    reverse = has_background and not style.underline and not _is_scrollbar_track(style)
    return style + _DEFAULT_COLORS + Style(reverse=bool(style.reverse) or reverse)


def _is_scrollbar_track(style: Style) -> bool:
    """Return True for the track of a scroll bar, which must not look like the thumb."""
    return style.meta.get("@mouse.down") in ("scroll_up", "scroll_down")
