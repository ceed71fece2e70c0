"""Freed memory is kept: counted in page faults, in a process of its own."""

import subprocess
import sys

import pytest

from engine.runtime.allocator import _glibc, give_back_freed_memory, keep_freed_memory

FAULTS = """
import resource, sys, threading
from engine.runtime.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def work():
    import numpy as np
    faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    sizes = [26_000_000, 3_000_000, 70_000_000, 40_000_000]
    def window():
        kept = [np.full(size, 1, np.uint8) for size in sizes]
    window()
    before = faults()
    for _ in range(5):
        window()
    print(faults() - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(_glibc() is None, reason="this system's C library is not glibc")
def test_memory_used_again_and_again_is_not_asked_for_anew() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert faults("keep") < 200
    assert faults("plain") > 1_000  # or the test above says nothing


GIVEN_BACK = """
import numpy as np
from pathlib import Path
from engine.runtime.allocator import give_back_freed_memory, keep_freed_memory
megabytes = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
assert keep_freed_memory()
before = megabytes()
kept = [np.full(3_000_000 + 1000 * number, 1, np.uint8) for number in range(60)]
del kept[::2]  # holes between what is still used
full = megabytes()
give_back_freed_memory()
print(full - before, megabytes() - before)
"""


@pytest.mark.skipif(_glibc() is None, reason="this system's C library is not glibc")
def test_memory_between_what_is_still_used_is_given_back() -> None:
    done = subprocess.run([sys.executable, "-c", GIVEN_BACK], capture_output=True, check=True, text=True)
    kept, left = map(float, done.stdout.split())
    assert kept > 170
    assert left < 110


class Musl:
    """A C library that has no such settings."""

    def __init__(self, name: None) -> None:
        pass


def no_library(name: None) -> None:
    raise OSError("there is none to be loaded")


@pytest.mark.parametrize("library", [Musl, no_library])
def test_a_c_library_that_cannot_be_told_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    monkeypatch.setattr("ctypes.CDLL", library)
    assert keep_freed_memory() is False
    give_back_freed_memory()
