"""What is left of a home when all have gone: every file must parse, and nobody may have stayed."""

import json
import os
from contextlib import suppress
from pathlib import Path

from engine.runs.metrics import read_rows
from engine.runs.store import CONFIG, METRICS, MODEL, SAMPLES, is_written, load, read_start, summarize
from lotr_tui.session.history import history_file
from lotr_tui.session.session_file import load_session
from lotr_tui.session.settings import KeptSettings


def processes_of(home: Path) -> list[str]:
    """The command lines of those who have this home, as /proc tells."""
    found, wanted = [], f"LOTR_TUI_HOME={home}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another person's
            if int(process.name) != os.getpid() and wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def check_home(home: Path) -> str:
    """See that all of it is whole; a line about what there is.

    Raises:
        AssertionError: something is damaged, or was set aside as damaged.
    """
    aside = [str(path) for path in home.rglob("*.damaged-*")]
    assert not aside, f"set aside: {aside}"
    runs = [check_run(path) for path in sorted((home / "runs").glob("*/")) if (path / CONFIG).exists()]
    sessions = [load_session(path).nodes for path in sorted((home / "sessions").glob("*.jsonl"))]
    kept = KeptSettings(home / "settings.json")
    assert not kept.notice, kept.notice
    prompts = 0
    if (history := home / history_file().name).exists():
        prompts = len([json.loads(line) for line in history.read_bytes().splitlines()])
    replies = sum(len(nodes) for nodes in sessions)
    return (
        f"{len(runs)} runs of {sum(runs):,} rows, {len(sessions)} sessions of {replies:,} replies, {prompts:,} prompts"
    )


def check_run(path: Path) -> int:
    """A run as a reader sees it; returns the rows of its record.

    Raises:
        AssertionError: two wrote it: an update is told twice, and no resume stands between.
    """
    assert not is_written(path), f"{path.name} is still being trained"
    read_start(path)
    summarize(path)
    if (path / MODEL).exists():
        load(path)
    rows, last = 0, -1
    for row in read_rows(path / METRICS):
        rows += 1
        if row["event"] == "resume":
            last = int(row["step"]) - 1
        elif row["event"] == "step":
            assert row["step"] > last, f"{path.name}: update {row['step']} stands behind {last}: two have trained it"
            last = row["step"]
    list(read_rows(path / SAMPLES))
    return rows
