"""A second process, which computes half of each product with the matrices of a large model while a text is written.

Threads cannot: each needs Python's lock to begin and to end a product, and waits for it as long as a product takes.
"""

import os
import sys
import threading
import time
import weakref
from contextlib import suppress
from itertools import repeat
from mmap import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array
from engine.runtime.process import use_huge_pages

MIN_WEIGHTS = 200_000_000  # of a model; with SmolLM2-135M, the gain is lost again beside small other loads
# Shared memory has, in lines of the cache, the number of the product that is wanted, that of the last one that is done,
# and what the process does, then vectors and their sums. The index of the matrix and how many vectors there are, are
# parts of the number.
WANTED, DONE, STATE = 0, 8, 16
STARTING, READY, ASLEEP = 0, 1, 2
MAX_MATRICES, MAX_VECTORS = 1 << 12, 1 << 5
VECTORS_START, SUMS_START, BLOCK_SIZE = 1 << 12, 1 << 19, 1 << 24
SPIN_SECONDS = 0.01  # that the process looks for a product before it sleeps
# How often the first process looks for sums before it computes them: as long as its own half takes, and a little. Other
# programs use the second core then, so it computes products alone, twice as many each time.
MIN_LOOKS, BYTES_PER_LOOK, MIN_ALONE, MAX_ALONE = 1000, 1000, 8, 512
_CODE = "import sys; sys.path[:] = sys.argv[2:]; from engine.models.second_process import serve; serve(sys.argv[1])"


def make_second_process(num_weights: int) -> "SecondProcess | None":
    """Return a process for a model with `num_weights`, unless it is small, or the machine lacks memory or cores."""
    # Only x86 processors show what a core stores to other cores in the order in which it does.
    if sys.platform != "linux" or os.uname().machine != "x86_64" or num_weights < MIN_WEIGHTS:
        return None
    import psutil

    has_memory = psutil.virtual_memory().available > 2 * num_weights  # with the half of the process
    return SecondProcess() if has_memory and len(os.sched_getaffinity(0)) > 1 else None


class SecondProcess:
    """Halves of matrices in another process, which starts with `start`, and ends with this object or this process."""

    def __init__(self) -> None:
        import numkong

        self._file, self._dots_packed = os.memfd_create("lotr-tui"), numkong.dots_packed
        weakref.finalize(self, os.close, self._file)
        os.ftruncate(self._file, BLOCK_SIZE)
        self._words, self._vectors, self._sums = _open_block(self._file)
        self._lock, self._process_id, self._shapes = threading.Lock(), os.getpid(), list[str]()
        self._number, self._num_alone, self._num_next_alone = 0, 0, MIN_ALONE

    def add(self, rows: npt.NDArray[np.int8]) -> int:
        """Copy rows of a matrix for the process, and return its index."""
        with self._lock:
            os.pwrite(self._file, rows.data, os.fstat(self._file).st_size)
            self._shapes.append(f"{len(rows)}x{rows.shape[1]}")
            return len(self._shapes) - 1

    def start(self) -> None:
        from subprocess import DEVNULL, PIPE, Popen  # takes 5 ms, and small models need no process

        command = [sys.executable, "-P", "-c", _CODE, " ".join([str(self._file), *self._shapes]), *sys.path]
        process = Popen(command, pass_fds=[self._file], process_group=0, stdin=PIPE, stdout=DEVNULL, stderr=DEVNULL)
        assert process.stdin
        self._pipe = process.stdin.fileno()
        weakref.finalize(self, _end, process)

    def multiply(self, index: int, first: Any, second: Any, vectors: Any) -> Float32Array:
        """Return the sums `[vectors, rows]` of both halves of a matrix, which are packed. Threads may call."""
        count, size = vectors.shape[0], vectors.shape[0] * vectors.shape[1]
        is_small = count < MAX_VECTORS and size <= len(self._vectors) and count * second.width <= len(self._sums)
        words, wanted = self._words, 0
        # Another thread may be asking, and a process that was forked from this one has the same block.
        is_first = is_small and self._num_alone <= 0 and os.getpid() == self._process_id
        is_asking = is_first and self._lock.acquire(blocking=False)
        if not is_asking:
            self._num_alone -= 1
        elif words[STATE] == READY:
            self._vectors[:size].reshape(vectors.shape)[:] = vectors
            self._number += 1
            words[WANTED] = wanted = (self._number * MAX_MATRICES + index) * MAX_VECTORS + count
        elif words[STATE] == ASLEEP:
            words[STATE], self._num_alone = STARTING, MIN_ALONE
            with suppress(BrokenPipeError):
                os.write(self._pipe, b"1")
        sums = np.asarray(self._dots_packed(vectors, first))
        for _ in repeat(None, MIN_LOOKS + count * second.nbytes // BYTES_PER_LOOK if wanted else 0):
            if words[DONE] == wanted:
                others = self._sums[: count * second.width].reshape(count, -1)
                self._num_next_alone = max(MIN_ALONE, self._num_next_alone * 9 // 10)
                break
        else:
            others = np.asarray(self._dots_packed(vectors, second))
            if wanted:
                self._num_alone = self._num_next_alone = min(2 * self._num_next_alone, MAX_ALONE)
        joined: Float32Array = np.concatenate((sums, others), axis=1, dtype=np.float32)
        if is_asking:
            self._lock.release()
        return joined


def _open_block(file: int) -> tuple[memoryview, npt.NDArray[np.int8], npt.NDArray[np.int32]]:
    block = mmap(file, BLOCK_SIZE)
    vectors = np.frombuffer(block, np.int8, SUMS_START - VECTORS_START, VECTORS_START)
    return memoryview(block).cast("q"), vectors, np.frombuffer(block, np.int32, -1, SUMS_START)


def _end(process: Any) -> None:
    process.kill()
    process.communicate()


def serve(arguments: str) -> None:
    import numkong

    file, shapes = int(arguments.split()[0]), arguments.split()[1:]
    (words, vectors, sums), matrices, start = _open_block(file), list[Any](), os.fstat(file).st_size
    for num_rows, num_inputs in (map(int, shape.split("x")) for shape in reversed(shapes)):
        start -= num_rows * num_inputs
        rows = np.frombuffer(os.pread(file, num_rows * num_inputs, start), np.int8).reshape(num_rows, -1)
        os.ftruncate(file, start)  # frees the memory of the rows
        matrices.insert(0, numkong.dots_pack(rows))
    use_huge_pages((id(matrix), matrix.nbytes) for matrix in matrices)
    os.nice(19)  # it looks without sleep, so every other program comes first
    done, sums_start = 0, sums.ctypes.data
    while True:
        words[STATE], last = READY, time.perf_counter()
        while time.perf_counter() < last + SPIN_SECONDS:
            for _ in repeat(None, 1000):
                if words[WANTED] != done:
                    done = words[WANTED]
                    matrix, count = matrices[done // MAX_VECTORS % MAX_MATRICES], done % MAX_VECTORS
                    out = numkong.from_pointer(sums_start, (count, matrix.width), "int32", owner=sums)
                    numkong.dots_packed(vectors[: count * matrix.depth].reshape(count, -1), matrix, out=out)
                    words[DONE], last = done, time.perf_counter()
        words[STATE] = ASLEEP
        if not os.read(0, 1):  # the first process has ended
            return
