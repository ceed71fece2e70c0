"""Settings of the memory allocator, measured in page faults and memory of a new process."""

import subprocess
import sys

import pytest

from engine.runtime.allocator import _load_glibc, disable_heap_trimming, trim_heap

PAGE_FAULTS_PROGRAM = """
import resource, sys, threading
from engine.runtime.allocator import disable_heap_trimming
if sys.argv[1] == "keep":
    assert disable_heap_trimming()
def work():
    import numpy as np
    faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    sizes = [26_000_000, 3_000_000, 70_000_000, 40_000_000]
    def window():
        arrays = [np.full(size, 1, np.uint8) for size in sizes]
    window()
    before = faults()
    for _ in range(5):
        window()
    print(faults() - before)
thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(_load_glibc() is None, reason="this system's C library is not glibc")
def test_without_heap_trimming_freed_memory_is_reused() -> None:
    def faults(how: str) -> int:
        command = [sys.executable, "-c", PAGE_FAULTS_PROGRAM, how]
        return int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)

    assert faults("keep") < 200
    assert faults("plain") > 1_000  # otherwise the assertion above proves nothing


TRIM_PROGRAM = """
import numpy as np
from pathlib import Path
from engine.runtime.allocator import disable_heap_trimming, trim_heap
megabytes = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6
assert disable_heap_trimming()
before = megabytes()
arrays = [np.full(3_000_000 + 1000 * number, 1, np.uint8) for number in range(60)]
del arrays[::2]  # leaves holes between blocks in use
full = megabytes()
trim_heap()
print(full - before, megabytes() - before)
"""


@pytest.mark.skipif(_load_glibc() is None, reason="this system's C library is not glibc")
def test_trim_heap_returns_memory_between_blocks_in_use() -> None:
    completed = subprocess.run([sys.executable, "-c", TRIM_PROGRAM], capture_output=True, check=True, text=True)
    before_trim, after_trim = map(float, completed.stdout.split())
    assert before_trim > 170
    assert after_trim < 110


class Musl:
    """Fake C library without mallopt."""

    def __init__(self, name: None) -> None:
        pass


def no_library(name: None) -> None:
    raise OSError("no C library")


@pytest.mark.parametrize("library", [Musl, no_library])
def test_other_c_libraries_are_left_unchanged(monkeypatch: pytest.MonkeyPatch, library: object) -> None:
    monkeypatch.setattr("ctypes.CDLL", library)
    assert disable_heap_trimming() is False
    trim_heap()
