"""Our colours, dark and light, one accent each; and how a screen looks on a terminal without colour."""

from functools import lru_cache

from rich.color import Color as RichColor
from rich.color import ColorType
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

MUTED = "$foreground 60%"
"""For what explains; the words are what is read."""

SHIRE = Theme(
    name="shire",
    primary="#d9a648",
    secondary="#7d8a73",
    accent="#d9a648",
    foreground="#d8d4c8",
    background="#14150f",
    surface="#14150f",
    panel="#1e2018",
    success="#8fb573",
    warning="#d9a648",
    error="#d9715f",
    dark=True,
    variables={
        "footer-background": "#14150f",
        "footer-key-foreground": "#d9a648",
        "footer-description-foreground": "#8b8c7e",
        "border": "#3a3d31",
        "block-cursor-background": "#d9a648",
        "input-selection-background": "#d9a648 35%",
        "scrollbar": "#3a3d31",
        "scrollbar-hover": "#55594a",
        "scrollbar-active": "#d9a648",
        "scrollbar-background": "#14150f",
        "scrollbar-background-hover": "#14150f",
        "scrollbar-background-active": "#14150f",
        "scrollbar-corner-color": "#14150f",
    },
)

SHIRE_LIGHT = Theme(
    name="shire-light",
    primary="#85580c",
    secondary="#5d6b52",
    accent="#85580c",
    foreground="#2d2b23",
    background="#faf7ee",
    surface="#faf7ee",
    panel="#efeadb",
    success="#4b6f2f",
    warning="#85580c",
    error="#a8321f",
    dark=False,
    variables={
        "footer-background": "#faf7ee",
        "footer-key-foreground": "#85580c",
        "footer-description-foreground": "#6f6b5d",
        "border": "#cfc8b4",
        "block-cursor-background": "#85580c",
        "block-cursor-foreground": "#faf7ee",
        "input-selection-background": "#85580c 30%",
        "scrollbar": "#cfc8b4",
        "scrollbar-hover": "#b3ab93",
        "scrollbar-active": "#85580c",
        "scrollbar-background": "#faf7ee",
        "scrollbar-background-hover": "#faf7ee",
        "scrollbar-background-active": "#faf7ee",
        "scrollbar-corner-color": "#faf7ee",
    },
)

_NO_COLOURS = Style.from_color(RichColor.default(), RichColor.default())


class Colourless(LineFilter):
    """No colours but the terminal's own two; what had a background of its own is underlined or reversed.

    For NO_COLOR with a theme of the terminal's colours, where Textual's grey scale would make black on black:
    it counts the terminal's default colours, which nobody knows, as black.
    """

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        """The segments, without their colours."""
        return [Segment(text, style and _colourless(style), control) for text, style, control in segments]


@lru_cache(1024)
def _colourless(style: Style) -> Style:
    behind = style.bgcolor
    coloured = behind is not None and behind.type is not ColorType.DEFAULT
    # What is underlined is told by that, and so from the word under a cursor, which is reversed.
    stands_out = coloured and not style.underline and not _is_scrollbars_way(style)
    return style + _NO_COLOURS + Style(reverse=bool(style.reverse) or stands_out)


def _is_scrollbars_way(style: Style) -> bool:
    """What Textual draws beside the thumb; it must not look like the thumb."""
    return style.meta.get("@mouse.down") in ("scroll_up", "scroll_down")
