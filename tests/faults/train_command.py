"""Command lines of `lotr-tui train` on a small corpus, and their environment."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from engine.storage.files import assets_dir

NUM_LINES = 300
"""Lines of the small corpus. A training on them takes about as long as its start-up."""

LOTR_TUI = [sys.executable, "-m", "lotr_tui"]


def write_small_corpus(path: Path) -> Path:
    """Write the beginning of the bundled dialogues to a CSV file, and return its path."""
    lines = (assets_dir() / "dialogues.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(lines[:NUM_LINES]), encoding="utf-8")
    return path


def train_command(run: str, corpus: Path, settings: Mapping[str, object]) -> list[str]:
    """Return the command that trains a new run with the preset "tiny" and some other settings."""
    overrides = [part for name, value in settings.items() for part in ("--set", f"{name}={value}")]
    return [*LOTR_TUI, "train", "--preset", "tiny", "--csv", str(corpus), "--run", run, *overrides]


def resume_command(run: str) -> list[str]:
    """Return the command that resumes a run."""
    return [*LOTR_TUI, "train", "--resume", run]


def command_environment(home: Path, *, debug: bool) -> dict[str, str]:
    """Return the environment of a command whose files are in `home`; with `debug`, errors have a traceback."""
    return {**os.environ, "LOTR_TUI_HOME": str(home), "LOTR_TUI_DEBUG": str(int(debug))}
