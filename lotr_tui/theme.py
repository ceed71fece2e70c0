"""The app's own themes, calm versions of the ANSI themes, and a filter for terminals without colour."""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from rich import color, style
from rich.segment import Segment
from textual.app import App
from textual.color import Color
from textual.filter import Monochrome
from textual.theme import BUILTIN_THEMES, Theme

MUTED = "$muted $muted-style"  # secondary text; CSS uses `color: $muted; text-style: $muted-style`
_COLORS = {  # of the dark and of the light theme
    **dict.fromkeys(("primary", "accent", "warning"), ("#d9a648", "#85580c")),
    **dict.fromkeys(("background", "surface"), ("#14150f", "#faf7ee")),
    "secondary": ("#7d8a73", "#5d6b52"),
    "foreground": ("#d8d4c8", "#2d2b23"),
    "panel": ("#1e2018", "#efeadb"),
    "success": ("#8fb573", "#4b6f2f"),
    "error": ("#d9715f", "#a8321f"),
}
_SPEAKER_COLORS = (  # of names in a dark and in a light theme
    "#8fb3d9 #9cc47f #e09a8f #b8a1d9 #7fc4b8 #e0a276 #d8a0c4 #c4c27f #86c8e0 #c8a58a #a5a9f0 #a8b8a8",
    "#245389 #35631f #943030 #5f4091 #17605a #7c410c #8a2864 #575512 #0b5c7a #634a33 #3d3fa8 #44544a",
)
_ANSI_COLORS = {  # accent, rule, which must not be brighter than text, and readable colours of speakers
    "ansi-dark": "yellow bright_black bright_cyan bright_green bright_magenta bright_blue bright_red cyan",
    "ansi-light": "blue white cyan green magenta red",
}


def _common_variables(accent: str, background: str, rule: str) -> dict[str, str]:
    return {
        **dict.fromkeys(("footer-key-foreground", "block-cursor-background", "scrollbar-active"), accent),
        **dict.fromkeys((f"scrollbar-background{state}" for state in ("", "-hover", "-active")), background),
        **dict.fromkeys(("border", "scrollbar"), rule),
        "scrollbar-corner-color": background,
    }


def _make_theme(theme_name: str, *, dark: bool) -> Theme:
    colors: dict[str, Any] = {name: pair[0 if dark else 1] for name, pair in _COLORS.items()}
    variables = {
        **_common_variables(colors["accent"], colors["background"], "#3a3d31" if dark else "#cfc8b4"),
        "footer-background": colors["background"],
        "footer-description-foreground": "#8b8c7e" if dark else "#6f6b5d",
        "input-selection-background": "#d9a648 35%" if dark else "#85580c 30%",
        "scrollbar-hover": "#55594a" if dark else "#b3ab93",
        **({} if dark else {"block-cursor-foreground": "#faf7ee"}),
        **default_variables(colors["foreground"], dark=dark),
    }
    return Theme(theme_name, dark=dark, variables=variables, **colors)


def _make_ansi_theme(name: str) -> Theme:
    """Return Textual's theme in the terminal's own colours, with one accent, and with dim rules and scroll bars."""
    accent, rule, *speakers = (f"ansi_{name}" for name in _ANSI_COLORS[name].split())
    variables = {
        **_common_variables(accent, "ansi_default", rule),
        **dict.fromkeys(("scrollbar", "scrollbar-hover"), "ansi_bright_black"),
        "muted": "ansi_default",
        "muted-style": "dim",  # a percentage of the terminal's default colour is that colour
        "border-blurred": rule,
        # The terminal has fewer colours than there are speakers, and they are used again.
        **{f"speaker-{index}": speakers[index % len(speakers)] for index in range(12)},
    }
    theme = BUILTIN_THEMES[name]
    return replace(theme, primary=accent, accent=accent, variables={**theme.variables, **variables})


def default_variables(foreground: str, *, dark: bool) -> dict[str, str]:
    """Return the variables of the app, for any theme with this text colour."""
    # `Content` ignores a percentage in the value of a variable, so the colour has the opacity in it.
    muted = {"muted": Color.parse(foreground).with_alpha(0.6).hex, "muted-style": "not dim"}
    return muted | {f"speaker-{i}": each for i, each in enumerate(_SPEAKER_COLORS[0 if dark else 1].split())}


SHIRE = _make_theme("shire", dark=True)
OWN_THEMES = (SHIRE, _make_theme("shire-light", dark=False), *map(_make_ansi_theme, _ANSI_COLORS))
THEME_NAMES = tuple(dict.fromkeys([*(theme.name for theme in OWN_THEMES), *sorted(BUILTIN_THEMES)]))


class ColorlessFilter(Monochrome):
    """Filter for NO_COLOR: with an ANSI theme, whose colours Textual counts as black, a background becomes reverse."""

    def __init__(self, app: App[Any]) -> None:
        super().__init__()
        self._app = app

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        if not self._app.native_ansi_color:
            return super().apply(segments, background)
        return [Segment(text, style and _remove_colors(style), control) for text, style, control in segments]


@lru_cache(1024)
def _remove_colors(colored: style.Style) -> style.Style:
    has_background = colored.bgcolor is not None and colored.bgcolor.type is not color.ColorType.DEFAULT
    is_scrollbar_track = colored.meta.get("@mouse.down") in ("scroll_up", "scroll_down")  # must not look like the thumb
    # Underlined text stands out already, and stays different from the reversed token under a cursor.
    reverse = has_background and not colored.underline and not is_scrollbar_track
    default = style.Style.from_color(color.Color.default(), color.Color.default())
    return colored + default + style.Style(reverse=bool(colored.reverse) or reverse)
