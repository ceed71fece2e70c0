"""A lock is held by one process, is released by any death, and shows who holds it."""

import os
import subprocess
import sys

import pytest

from engine.storage.files import FileLock, is_locked

HOLDER = """
import sys
from pathlib import Path
from engine.storage.files import FileLock
lock = FileLock(Path(sys.argv[1]))
assert lock.acquire()
print("held", flush=True)
input()
"""


def test_a_second_lock_on_the_same_file_is_refused_until_the_first_is_released(tmp_path):
    path = tmp_path / "lock"
    first, second = FileLock(path), FileLock(path)
    assert first.acquire()
    assert is_locked(path)
    assert not second.acquire()
    with pytest.raises(BlockingIOError), FileLock(path, timeout=0.05):
        pass
    first.release()
    assert not is_locked(path)
    with FileLock(path, timeout=0.05):
        assert is_locked(path)
    assert not is_locked(path)


def test_the_kernel_releases_the_lock_of_a_killed_process(tmp_path):
    path = tmp_path / "lock"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        assert is_locked(path)
        assert not FileLock(path).acquire()
        process.kill()
        process.wait()
    assert not is_locked(path)


def test_a_pipe_or_a_link_is_no_lock_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=r".+"):
            FileLock(tmp_path / name).acquire()
        assert not is_locked(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()
