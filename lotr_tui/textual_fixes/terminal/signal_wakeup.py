"""A signal does not wake the event loop if another thread receives it.

Python runs the handlers of signals in the main thread, which sleeps in the event loop; the system lets any thread
receive a signal. asyncio wakes the loop only for handlers of its own, whose descriptor is closed before the process
ends, and which prints errors when many signals fill it. No issue reports this for Textual, whose Linux driver installs
plain handlers.
"""

import asyncio
import os
import signal


def wake_loop_at_signals(loop: asyncio.AbstractEventLoop) -> None:
    """Let every signal that has a handler wake `loop`, until the process ends."""
    read_end, write_end = os.pipe()  # open until the process ends
    for end in (read_end, write_end):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    loop.add_reader(read_end, os.read, read_end, 4096)
