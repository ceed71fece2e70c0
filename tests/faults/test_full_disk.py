"""Short form of `python -m tests.faults.full_disk`."""

import subprocess
import sys

import pytest

from tests.faults.small_disk import find_unshare_command


@pytest.mark.skipif(find_unshare_command() is None, reason="no file system can be mounted here")
def test_full_disk_is_reported_and_damages_no_file() -> None:
    command = [sys.executable, "-m", "tests.faults.full_disk", "--fills", "1", "--saves", "4", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "same bits, nothing damaged" in done.stdout
