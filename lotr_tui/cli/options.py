"""Options that the commands share, and whether there is a terminal to draw on."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

RunsDirOption = Annotated[Path | None, typer.Option("--runs-dir", help="Folder of the runs.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ThemeOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Colours for this session: shire-light, ansi-dark, any of Textual's.")
]
NoMouseOption = Annotated[bool, typer.Option("--no-mouse", help="Leave the mouse to the terminal.")]
SplitSeedOption = Annotated[int | None, typer.Option("--split-seed", help="Seed of the shuffle before the split.")]
ModeOption = Annotated[str | None, typer.Option("--mode", help="line: <eos> ends every line; stream: ends each split.")]
TextColumnOption = Annotated[str | None, typer.Option("--text-column", help="CSV column of the utterances.")]
SpeakerColumnOption = Annotated[str | None, typer.Option("--speaker-column", help="CSV column of the speakers.")]
PrecisionOption = Annotated[
    str,
    typer.Option("--precision", metavar="NAME", help="fp32; int8 is faster with large models, and less exact."),
]


def has_terminal() -> bool:
    """Whether a screen can be drawn: not into a pipe, on a dumb terminal or where CI looks on."""
    plain = os.environ.get("TERM", "dumb") == "dumb" or os.environ.get("CI", "") not in ("", "0", "false")
    return sys.stdin.isatty() and sys.stdout.isatty() and not plain
