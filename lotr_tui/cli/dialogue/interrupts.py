"""Ctrl+c that ends a long output at a clean place."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def defer_interrupt() -> Iterator[Callable[[], bool]]:
    """Defer ctrl+c to the end of the block, which gets a function that returns True once ctrl+c was pressed.

    A `KeyboardInterrupt` inside a write could print the text twice, so it is raised after the block, or by a second
    ctrl+c at once. Where SIGINT is ignored, as in the background of a shell, it stays ignored.
    """
    num_interrupts = 0

    def count_interrupt(signal_number: int, frame: FrameType | None) -> None:
        nonlocal num_interrupts
        num_interrupts += 1
        if num_interrupts > 1:
            signal.default_int_handler(signal_number, frame)

    previous = signal.getsignal(signal.SIGINT)
    if previous is signal.default_int_handler:
        signal.signal(signal.SIGINT, count_interrupt)
    try:
        yield lambda: num_interrupts > 0
    finally:
        signal.signal(signal.SIGINT, previous)
    if num_interrupts:
        raise KeyboardInterrupt
