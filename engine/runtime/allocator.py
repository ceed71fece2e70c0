"""Settings of glibc's memory allocator for a training, which allocates the same sizes again and again."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import CDLL

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
"""Parameters of `mallopt`, from glibc's `malloc.h`."""


def disable_heap_trimming() -> bool:
    """Keep freed memory in this process for reuse, if the C library is glibc. Return True if it is.

    Returning and requesting memory costs a page fault for every 4 KB, which took a sixth of the training time. Call
    this function before starting the training thread, since a thread keeps the arena it was given first.
    """
    library = _load_glibc()
    if library is None:
        return False
    settings = [(_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)]
    # One arena for all threads: a thread's own arena would still return blocks larger than its heaps.
    return all(library.mallopt(*setting) for setting in [*settings, (_ARENA_MAX, 1)])


def trim_heap() -> None:
    """Return freed memory to the system."""
    library = _load_glibc()
    if library is not None:
        library.malloc_trim(0)


def _load_glibc() -> "CDLL | None":
    """Return the C library, or None if it is not glibc."""
    from ctypes import CDLL  # the session starts without ctypes

    try:
        library = CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
