"""Commands that run in a new process, and their output."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any


def run_process(command: Sequence[str], folder: Path, environment: Mapping[str, str]) -> CompletedProcess[str]:
    """Run a command in `folder` for at most 60 s, and check that it succeeds."""
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 60, "check": False}
    process = subprocess.run(command, cwd=folder, env=environment, **options)
    assert process.returncode == 0, process.stderr
    return process


def json_output(process: CompletedProcess[str]) -> Any:
    """Return the JSON value that a successful command printed."""
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)
