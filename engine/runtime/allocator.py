"""Memory of this process: glibc's allocator for a training, and huge pages for weights."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import CDLL

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
"""Parameters of `mallopt`, from glibc's `malloc.h`."""
_MADV_COLLAPSE = 25
"""Advice to move memory into huge pages at once, of Linux 6.1 and later."""
_PAGE, _HUGE_PAGE = 1 << 12, 1 << 21
"""Usual sizes of pages; where there are others, the system refuses the advice."""


def disable_heap_trimming() -> None:
    """Keep freed memory in this process for reuse, if the C library is glibc.

    Returning and requesting memory costs a page fault for every 4 KB: 8 % of the time of `train --preset tiny`. Call
    this function before starting the training thread, since a thread keeps the arena it was given first.
    """
    if (library := _load_glibc()) is not None:
        # One arena for all threads: a thread's own arena would still return blocks larger than its heaps.
        settings = [(_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26), (_ARENA_MAX, 1)]
        for name, value in settings:
            library.mallopt(name, value)


def trim_heap() -> None:
    if (library := _load_glibc()) is not None:
        library.malloc_trim(0)


def use_huge_pages(blocks: Iterable[tuple[int, int]]) -> None:
    """Move blocks of memory, each an address and a size in bytes, into huge pages; do nothing where that fails.

    The processor then needs less time to find the addresses of what it reads. The content does not change, and other
    threads can read it meanwhile. Blocks that were allocated one after the other share huge pages.
    """
    if sys.platform != "linux" or (library := _load_glibc()) is None:
        return
    from ctypes import c_int, c_size_t, c_void_p

    groups: list[list[tuple[int, int]]] = []
    end = 0
    for start, size in sorted(blocks):
        if groups and start - end < _HUGE_PAGE:
            groups[-1].append((start, size))
        else:
            groups.append([(start, size)])
        end = start + size
    while groups:
        group = groups.pop()
        start, end = group[0][0] - group[0][0] % _PAGE, sum(group[-1])
        failed = library.madvise(c_void_p(start), c_size_t(end - start), c_int(_MADV_COLLAPSE))
        if failed and len(group) > 1:  # there may be a gap between blocks that is not this process's memory
            middle = len(group) // 2
            groups += [group[:middle], group[middle:]]


def _load_glibc() -> "CDLL | None":
    from ctypes import CDLL  # the session starts without ctypes

    try:
        library = CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
