"""Check of the clipboard: how a copied text reaches it."""

from lotr_tui.doctor.environment import Environment
from lotr_tui.doctor.finding import Finding

WITHOUT_OSC_52 = {"Apple_Terminal": "Terminal of macOS"}
"""Terminals that ignore the escape sequence OSC 52, by TERM_PROGRAM."""
SELECT_ADVICE = "select with the mouse and --no-mouse, or export to a file; ctrl+v pastes within lotr-tui"


def check_clipboard(environment: Environment) -> list[Finding]:
    """Report whether copying, which uses the escape sequence OSC 52, can reach the clipboard of the terminal."""
    variables = environment.variables
    terminal = variables.get("TERM", "")
    if terminal in ("", "dumb", "linux"):
        return [Finding("clipboard", "warning", f"none: TERM is {terminal or 'not set'}", SELECT_ADVICE)]
    if variables.get("TMUX"):
        return [_check_tmux(environment)]
    if variables.get("VTE_VERSION"):
        return [Finding("clipboard", "warning", "OSC 52, which terminals of GNOME (VTE) ignore", SELECT_ADVICE)]
    if name := WITHOUT_OSC_52.get(variables.get("TERM_PROGRAM", "")):
        return [Finding("clipboard", "warning", f"OSC 52, which the {name} ignores", SELECT_ADVICE)]
    way = "OSC 52 through GNU screen" if variables.get("STY") or terminal.startswith("screen") else "OSC 52"
    return [Finding("clipboard", "ok", f"{way}, if the terminal allows it (none confirms it)")]


def _check_tmux(environment: Environment) -> Finding:
    """Report the settings of tmux: it accepts OSC 52 if `set-clipboard` is on, or passes it on."""
    set_clipboard = _tmux_setting(environment, "-sv", "set-clipboard")
    passthrough = _tmux_setting(environment, "-gv", "allow-passthrough")
    if set_clipboard is None:
        return Finding("clipboard", "warning", "OSC 52 in tmux, which does not answer", SELECT_ADVICE)
    summary = f"OSC 52 in tmux: set-clipboard {set_clipboard}, allow-passthrough {passthrough or 'unknown'}"
    if set_clipboard == "on" or passthrough in ("on", "all"):
        return Finding("clipboard", "ok", summary)
    return Finding("clipboard", "warning", summary, "copied text stays in tmux; run `tmux set -s set-clipboard on`")


def _tmux_setting(environment: Environment, scope: str, name: str) -> str | None:
    answer = environment.run(["tmux", "show-options", scope, name])
    return answer.output.strip() if answer and answer.exit_code == 0 and answer.output.strip() else None
