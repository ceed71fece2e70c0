"""Functions that read or write a run directory, for tests with damaged or blocking files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.control import ControlCommand
from engine.runs.control_files import send_command
from engine.runs.directory import lock_owner
from engine.runs.loading import load_model
from engine.runs.locked_run import reopen_run
from engine.runs.summary import summarize_run
from engine.runs.writer import record_events
from tests.support.metrics import make_step

READERS: dict[str, Callable[[Path], Any]] = {
    "summarize": summarize_run,
    "lock owner": lock_owner,
    "load": load_model,
    "reopen": reopen_run,
    "record": lambda path: list(record_events(reopen_run(path), iter([make_step(1)]))),
    "send command": lambda path: send_command(path, ControlCommand("stop")),
}
