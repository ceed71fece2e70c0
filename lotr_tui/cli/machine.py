"""`lotr-tui doctor`, `locate` and `completion`: the machine, the installation and the shell."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from rich.table import Table
from rich.text import Text

from engine.errors import printable
from engine.models.pretrained.names import SMOLLM2, base_folder
from engine.storage.files import app_home, assets_dir, default_runs_dir
from lotr_tui import completion as completion_package
from lotr_tui.cli.console import make_console, print_json, terminal_width
from lotr_tui.cli.options import JsonOption
from lotr_tui.cli.parser import add_command, argument, make_group
from lotr_tui.doctor.checks import run_checks
from lotr_tui.formatting import plural
from lotr_tui.learn.progress import progress_file
from lotr_tui.session import history, session_file, settings

STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}
commands = make_group()


@add_command(commands, "doctor", "lotr-tui doctor", "lotr-tui doctor --json > report.json")
def doctor(as_json: JsonOption = False) -> int:
    """Show what works on this machine and what to do about the rest, on one screen for a bug report."""
    findings = list(run_checks())
    states = [finding.state for finding in findings]
    problems, warnings = states.count("problem"), states.count("warning")
    if as_json:
        print_json({"ok": not problems, "findings": [asdict(finding) for finding in findings]}, indent=2)
        return 1 if problems else 0
    table = Table.grid(padding=(0, 1))
    for finding in findings:
        advice = f"\n→ {finding.advice}" if finding.advice else ""
        text = Text(printable(finding.summary) + advice)
        table.add_row(Text(finding.state, STYLES[finding.state]), Text(finding.name), text)
    console = make_console()
    console.print(table, width=min(terminal_width(), 100))
    counts = f"{plural(problems, 'problem')}, {plural(warnings, 'warning')}"
    console.print(f"{len(findings)} checks: {counts}".replace(" 0 ", " no "))
    return 1 if problems else 0


@add_command(commands, "locate")
def locate() -> None:
    """Print the paths of runs, models, settings, history, sessions, the progress in the class, and bundled files."""
    paths = {
        "home": app_home(),
        "runs": default_runs_dir(),
        "models": base_folder(SMOLLM2).parent,
        "settings": settings.settings_file(),
        "history": history.history_file(),
        "sessions": session_file.sessions_folder(),
        "progress": progress_file(),
        "assets": assets_dir(),
    }
    for name, path in paths.items():
        print(f"{name:8}  {path}")


@add_command(commands, "completion", 'eval "$(lotr-tui completion bash)"')
def completion(shell: Annotated[Literal["bash", "zsh", "fish"], argument("SHELL", "bash, zsh or fish.")]) -> None:
    """Print the completion for a shell: commands, options, runs, presets, settings and speakers.

    bash: add `eval "$(lotr-tui completion bash)"` to ~/.bashrc. zsh: add `eval "$(lotr-tui completion zsh)"` to
    ~/.zshrc, after compinit. fish: run `lotr-tui completion fish > ~/.config/fish/completions/lotr-tui.fish` once.
    """
    print(Path(completion_package.__file__).with_name(f"lotr-tui.{shell}").read_text(encoding="utf-8"), end="")
