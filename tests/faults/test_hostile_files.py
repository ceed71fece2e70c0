"""Short form of `python -m tests.faults.hostile_files`."""

import subprocess
import sys

from tests.support.files import CHECKOUT


def test_hostile_files_and_run_directories_are_refused_in_one_line() -> None:
    """Run in another process, which forks."""
    options = ["--inputs", "24", "--directories", "2", "--seed", "3"]
    command = [sys.executable, "-m", "tests.faults.hostile_files", *options]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"trials": 24' in done.stdout
    assert '"trials": 10' in done.stdout
