"""The short form of `python -m tests.faults.full_disk`."""

import subprocess
import sys

import pytest

from tests.faults.small_disk import way_to_mount


@pytest.mark.skipif(way_to_mount() is None, reason="no file system can be mounted here")
def test_a_full_disk_is_told_damages_nothing_and_all_is_written_at_last() -> None:
    command = [sys.executable, "-m", "tests.faults.full_disk", "--fills", "1", "--saves", "4", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "same bits, nothing damaged" in done.stdout
