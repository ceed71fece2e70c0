"""Checks of the terminal: its kind and size, its colours, its encoding."""

from collections.abc import Mapping

from lotr_tui.doctor.environment import Environment
from lotr_tui.doctor.finding import Finding

MIN_SIZE = (40, 12)
"""Columns and rows that the class needs; the session needs less."""
COLOR_NAMES = {"truecolor": "true colour", "256": "256 colours", "standard": "16 colours", "windows": "16 colours"}
KITTY_TERMS = ("xterm-kitty", "xterm-ghostty", "foot", "foot-extra", "alacritty", "wezterm")
KITTY_PROGRAMS = ("ghostty", "WezTerm", "iTerm.app")
"""Terminals with the keyboard protocol of kitty, which tells ctrl+i from tab, by TERM and by TERM_PROGRAM."""


def check_terminal(environment: Environment) -> list[Finding]:
    """Report the kind and the size of the terminal."""
    variables = environment.variables
    name = variables.get("TERM") or "TERM is not set"
    parts = [name]
    if program := variables.get("TERM_PROGRAM"):
        parts.append(program)
    if environment.size:
        parts.append("{}x{}".format(*environment.size))
    parts += [f"in {multiplexer}" for multiplexer in _multiplexers(variables)]
    if variables.get("SSH_CONNECTION") or variables.get("SSH_TTY"):
        parts.append("over SSH")
    if has_kitty_keyboard(variables):
        parts.append("kitty keyboard protocol")
    closed = [
        stream
        for stream, is_open in zip(("stdin", "stdout", "stderr"), environment.streams, strict=True)
        if not is_open
    ]
    if closed:
        parts.append(f"not a terminal: {', '.join(closed)}")
    summary = ", ".join(parts)
    if variables.get("TERM", "") in ("", "dumb"):
        return [
            Finding("terminal", "warning", summary, "the screens need a terminal; set TERM, such as xterm-256color")
        ]
    if variables.get("CI", "") not in ("", "0", "false"):
        return [
            Finding("terminal", "warning", f"{summary}, CI={variables['CI']}", "`train` prints lines where CI is set")
        ]
    if environment.size and (environment.size[0] < MIN_SIZE[0] or environment.size[1] < MIN_SIZE[1]):
        return [Finding("terminal", "warning", summary, "use a window of at least 40 x 12; 80 x 24 is comfortable")]
    return [Finding("terminal", "ok", summary)]


def check_colors(environment: Environment) -> list[Finding]:
    """Report the colours that the screens will use."""
    from rich.console import Console

    variables = environment.variables
    console = Console(force_terminal=True, _environ=variables)
    shown = [f"{name}={variables[name]}" for name in ("COLORTERM", "NO_COLOR", "FORCE_COLOR") if name in variables]
    origin = f" ({', '.join(shown)})" if shown else ""
    if console.no_color:
        return [Finding("colours", "ok", f"none, as NO_COLOR asks{origin}")]
    system = console.color_system
    if system is None:
        return [Finding("colours", "warning", f"none{origin}", "set TERM to the name of your terminal")]
    if system == "truecolor":
        return [Finding("colours", "ok", f"true colour{origin}")]
    advice = "if the terminal can show more, set COLORTERM=truecolor"
    return [Finding("colours", "warning", f"{COLOR_NAMES[system]}{origin}", advice)]


def check_encoding(environment: Environment) -> list[Finding]:
    """Report whether text beyond ASCII can be shown."""
    names = ("LC_ALL", "LC_CTYPE", "LANG")
    locale = next((f"{name}={environment.variables[name]}" for name in names if environment.variables.get(name)), "")
    summary = f"{environment.encoding.upper()} ({locale or 'no locale is set'})"
    if environment.encoding.lower().replace("-", "") != "utf8":
        return [Finding("text", "problem", summary, "marks and letters beyond ASCII are lost; export LC_ALL=C.UTF-8")]
    is_plain = bool(locale) and "utf" not in locale.lower()
    advice = "if characters look wrong, `export LC_ALL=C.UTF-8`" if is_plain else ""
    return [Finding("text", "warning" if is_plain else "ok", summary, advice)]


def has_kitty_keyboard(variables: Mapping[str, str]) -> bool:
    """Return True if the terminal is known for the keyboard protocol of kitty, and nothing is between it and us."""
    is_direct = not any(_multiplexers(variables))
    return is_direct and (variables.get("TERM") in KITTY_TERMS or variables.get("TERM_PROGRAM") in KITTY_PROGRAMS)


def _multiplexers(variables: Mapping[str, str]) -> list[str]:
    names = {"TMUX": "tmux", "STY": "GNU screen", "ZELLIJ": "zellij"}
    return [name for variable, name in names.items() if variables.get(variable)]
