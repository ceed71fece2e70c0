"""The short form of `python -m tests.faults.hostile_files`."""

import subprocess
import sys

from tests.conftest import CHECKOUT


def test_files_and_run_directories_of_strangers_are_refused_in_a_line() -> None:
    """In a process of its own, for it forks."""
    options = ["--inputs", "24", "--directories", "2", "--seed", "3"]
    command = [sys.executable, "-m", "tests.faults.hostile_files", *options]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"done": 24' in done.stdout
    assert '"done": 10' in done.stdout
