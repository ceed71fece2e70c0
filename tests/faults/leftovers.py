"""Checks of a home after all processes have ended: every file is valid, and no process is left."""

import json
import os
from contextlib import suppress
from pathlib import Path

from engine.runs.directory import (
    CONFIG_FILE,
    METRICS_FILE,
    MODEL_FILE,
    SAMPLES_FILE,
    is_locked,
    read_config_and_tokenizer,
)
from engine.runs.loading import load_model
from engine.runs.metrics import read_rows
from engine.runs.summary import summarize_run
from lotr_tui.session.history import history_file
from lotr_tui.session.session_file import load_session
from lotr_tui.session.settings import SettingsStore


def processes_of(home: Path) -> list[str]:
    """Return the command lines of the other processes whose `LOTR_TUI_HOME` is `home`."""
    command_lines, variable = [], f"LOTR_TUI_HOME={home}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # the process has ended, or belongs to another user
            if int(process.name) != os.getpid() and variable in (process / "environ").read_bytes().split(b"\0"):
                command_line = (process / "cmdline").read_bytes().replace(b"\0", b" ")
                command_lines.append(command_line.decode(errors="replace"))
    return command_lines


def check_home(home: Path) -> str:
    """Check every file of a home, and return a line that counts the content.

    Raises:
        AssertionError: If a file is damaged, or was set aside as damaged.
    """
    quarantined = [str(path) for path in home.rglob("*.damaged-*")]
    assert not quarantined, f"set aside as damaged: {quarantined}"
    row_counts = [check_run(path) for path in sorted((home / "runs").glob("*/")) if (path / CONFIG_FILE).exists()]
    sessions = [load_session(path) for path in sorted((home / "sessions").glob("*.jsonl"))]
    settings = SettingsStore(home / "settings.json")
    assert not settings.notice, settings.notice
    prompts = []
    if (history := home / history_file().name).exists():
        prompts = [json.loads(line) for line in history.read_bytes().splitlines()]
    num_replies = sum(len(session.replies) for session in sessions)
    return (
        f"{len(row_counts)} runs with {sum(row_counts):,} rows, "
        f"{len(sessions)} sessions with {num_replies:,} replies, {len(prompts):,} prompts"
    )


def check_run(run_dir: Path) -> int:
    """Read a run as a viewer does, and return the number of rows in its metrics.

    Raises:
        AssertionError: If the run is still being trained, or two processes have trained it at the same time: a step
            occurs twice without a resume between.
    """
    assert not is_locked(run_dir), f"{run_dir.name} is still being trained"
    read_config_and_tokenizer(run_dir)
    summarize_run(run_dir)
    if (run_dir / MODEL_FILE).exists():
        load_model(run_dir)
    num_rows, last_step = 0, -1
    for row in read_rows(run_dir / METRICS_FILE):
        num_rows += 1
        if row["event"] == "resume":
            last_step = int(row["step"]) - 1
        elif row["event"] == "step":
            step = row["step"]
            assert step > last_step, f"{run_dir.name}: step {step} follows {last_step}: two processes trained the run"
            last_step = step
    list(read_rows(run_dir / SAMPLES_FILE))
    return num_rows
