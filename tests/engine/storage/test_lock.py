"""A lock is held by one process, is released by any death, and shows who holds it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.storage.lock import FileLock, is_locked

HOLDER = """
import sys
from pathlib import Path
from engine.storage.lock import FileLock
lock = FileLock(Path(sys.argv[1]))
assert lock.acquire()
print("held", flush=True)
input()
"""


def test_a_second_lock_on_the_same_file_is_refused_until_the_first_is_released(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.acquire()
    assert is_locked(tmp_path / "lock")
    assert not second.acquire()
    first.release()
    assert not is_locked(tmp_path / "lock")
    assert second.acquire()
    second.release()


def test_a_timeout_waits_for_the_holder(tmp_path: Path) -> None:
    holder = FileLock(tmp_path / "lock")
    assert holder.acquire()
    with pytest.raises(BlockingIOError), FileLock(tmp_path / "lock", timeout=0.05):
        pass
    holder.release()
    with FileLock(tmp_path / "lock", timeout=0.05):
        assert is_locked(tmp_path / "lock")
    assert not is_locked(tmp_path / "lock")


def test_the_kernel_releases_the_lock_of_a_killed_process(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert is_locked(path)
        assert not FileLock(path).acquire()
        process.kill()
        process.wait()
    assert not is_locked(path)


def test_the_owner_is_written_over_a_longer_one(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.acquire()
    lock.write_owner("process 12345 on a host with a long name\n")
    lock.write_owner("process 7 on moria\n")
    assert (tmp_path / "lock").read_text() == "process 7 on moria\n"
    lock.release()


def test_a_pipe_or_a_link_is_no_lock_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("pipe", "link"):
        with pytest.raises(OSError, match=r".+"):
            FileLock(tmp_path / name).acquire()
        assert not is_locked(tmp_path / name)
    assert not (tmp_path / "elsewhere").exists()
