"""The app's own themes, calm versions of the ANSI themes, and a filter for terminals without colour."""

from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache
from typing import Any

from rich.color import Color as RichColor
from rich.color import ColorType
from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import BUILTIN_THEMES, Theme

from engine.errors import ConfigError, suggest_nearest

MUTED = "$muted $muted-style"
"""Style of secondary text. CSS uses `color: $muted; text-style: $muted-style`."""

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
_SPEAKER_COLORS = (
    ("#8fb3d9", "#245389"),
    ("#9cc47f", "#35631f"),
    ("#e09a8f", "#943030"),
    ("#b8a1d9", "#5f4091"),
    ("#7fc4b8", "#17605a"),
    ("#e0a276", "#7c410c"),
    ("#d8a0c4", "#8a2864"),
    ("#c4c27f", "#575512"),
    ("#86c8e0", "#0b5c7a"),
    ("#c8a58a", "#634a33"),
    ("#a5a9f0", "#3d3fa8"),
    ("#a8b8a8", "#44544a"),
)
"""Colours of the names of speakers in a dark and in a light theme."""
_ANSI_SPEAKER_COLORS = {
    "ansi-dark": ["bright_cyan", "bright_green", "bright_magenta", "bright_blue", "bright_red", "cyan"] * 2,
    "ansi-light": ["cyan", "green", "magenta", "red"] * 3,
}
"""Colours of the terminal that are readable on a dark and on a light background; they are fewer, and used again."""
_ANSI_ACCENTS = {"ansi-dark": "ansi_yellow", "ansi-light": "ansi_blue"}
_ANSI_RULES = {"ansi-dark": "ansi_bright_black", "ansi-light": "ansi_white"}
"""Colours of rules, which must not be brighter than text."""


def _make_theme(name: str, *, dark: bool) -> Theme:
    column = 0 if dark else 1
    colors: dict[str, Any] = {color: pair[column] for color, pair in _COLORS.items()}
    variables = {variable: text for variable, pair in _VARIABLES.items() if (text := pair[column]) is not None}
    variables |= muted_variables(_COLORS["foreground"][column]) | speaker_variables(dark=dark)
    return Theme(name, dark=dark, variables=variables, **colors)


def _make_ansi_theme(name: str) -> Theme:
    """Return Textual's theme in the terminal's own colours, with one accent, and with dim rules and scroll bars."""
    accent, rule = _ANSI_ACCENTS[name], _ANSI_RULES[name]
    variables = {
        "muted": "ansi_default",
        "muted-style": "dim",  # a percentage of the terminal's default colour is that colour
        "border": rule,
        "border-blurred": rule,
        "footer-key-foreground": accent,
        "block-cursor-background": accent,
        "scrollbar": "ansi_bright_black",
        "scrollbar-hover": "ansi_bright_black",
        "scrollbar-active": accent,
        "scrollbar-background": "ansi_default",
        "scrollbar-background-hover": "ansi_default",
        "scrollbar-background-active": "ansi_default",
        "scrollbar-corner-color": "ansi_default",
        **_speaker_variables(f"ansi_{color}" for color in _ANSI_SPEAKER_COLORS[name]),
    }
    theme = BUILTIN_THEMES[name]
    return replace(theme, primary=accent, accent=accent, variables={**theme.variables, **variables})


def muted_variables(foreground: str) -> dict[str, str]:
    """Return the variables of secondary text for a theme that does not define them."""
    # `Content` ignores a percentage in the value of a variable, so the colour has the opacity in it.
    return {"muted": Color.parse(foreground).with_alpha(0.6).hex, "muted-style": "not dim"}


def speaker_variables(*, dark: bool) -> dict[str, str]:
    """Return the variables of the colours of speakers for a dark or a light theme that does not define them."""
    return _speaker_variables(pair[0 if dark else 1] for pair in _SPEAKER_COLORS)


def _speaker_variables(colors: Iterable[str]) -> dict[str, str]:
    return {f"speaker-{index}": color for index, color in enumerate(colors)}


SHIRE = _make_theme("shire", dark=True)
SHIRE_LIGHT = _make_theme("shire-light", dark=False)
OWN_THEMES = (SHIRE, SHIRE_LIGHT, *map(_make_ansi_theme, _ANSI_ACCENTS))
"""Themes to register; the last ones replace themes of Textual."""


def theme_names() -> list[str]:
    """Return the names of all themes, ours first."""
    return [SHIRE.name, SHIRE_LIGHT.name, *BUILTIN_THEMES]


def check_theme_name(name: str) -> None:
    """Raise a ConfigError that lists all themes if none has this name."""
    names = theme_names()
    if name not in names:
        nearest = suggest_nearest(name, names)
        raise ConfigError(f"unknown theme {name!r}{nearest} The themes: {', '.join(names)}")


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
