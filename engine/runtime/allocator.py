"""What the C library does with memory that is no longer used: a training uses the same amounts again and again."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ctypes import CDLL

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -2, -3, -8
"""From glibc's `malloc.h`."""


def keep_freed_memory() -> bool:
    """Have freed memory kept for the next window instead of handed back to the system; whether this system can.

    Handing back and asking anew costs a page fault for every 4 KB, a sixth of a training's time. What a thread was
    given first it stays with, so this comes before the thread that trains. Only glibc can be told.
    """
    library = _glibc()
    if library is None:
        return False
    settings = [(_MMAP_THRESHOLD, 2**30), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26)]
    # A thread's own arena would still give back what is larger than its heaps: all threads share the first one.
    return all(library.mallopt(*setting) for setting in [*settings, (_ARENA_MAX, 1)])


def give_back_freed_memory() -> None:
    """Hand back what is kept."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


def _glibc() -> "CDLL | None":
    from ctypes import CDLL  # the session starts without it

    try:
        library = CDLL(None)
    except (OSError, TypeError):
        return None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
