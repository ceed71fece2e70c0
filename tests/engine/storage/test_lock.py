"""A lock is held by one process, is released by any death, and shows who holds it."""

import os
import subprocess
import sys

import pytest

from engine.storage.files import lock_file

HOLDER = """
import sys
from pathlib import Path
from engine.storage.files import lock_file
lock = lock_file(Path(sys.argv[1]))
print("held", flush=True)
input()
"""


def test_a_second_lock_on_the_same_file_is_refused_until_the_first_is_released(tmp_path):
    path = tmp_path / "lock"
    with lock_file(path):
        for timeout in (0.0, 0.05):
            with pytest.raises(BlockingIOError):
                lock_file(path, timeout)
    lock_file(path, 0.05).close()
    lock_file(path).close()


def test_the_kernel_releases_the_lock_of_a_killed_process(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            lock_file(path)
        process.kill()
        process.wait()
    lock_file(path).close()


def test_a_pipe_or_a_link_is_no_lock_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=r"not a regular file|symbolic links"):
            lock_file(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()
