"""A closed terminal keeps the app from exiting.

Seen in Textual 8.2.8. `WriterThread.run` ends with an exception when the terminal cannot be written to; its bounded
queue then fills, and the app waits for ever in `WriterThread.write`. Upstream, the thread would have to keep emptying
its queue after an `OSError`.
"""

from contextlib import suppress

from textual.drivers import linux_driver
from textual.drivers._writer_thread import WriterThread


def install_resilient_writer() -> None:
    """Replace the writer thread of Textual's Linux driver."""
    linux_driver.WriterThread = ResilientWriterThread  # type: ignore[attr-defined]


class ResilientWriterThread(WriterThread):
    """Writer thread that discards its output once the terminal is closed."""

    def run(self) -> None:
        """Write queued text until the thread is stopped."""
        is_closed = False
        while (text := self._queue.get()) is not None:
            if is_closed:
                continue
            try:
                self._file.write(text)
                if not self._queue.qsize():
                    self._file.flush()
            except OSError:
                is_closed = True
        if not is_closed:
            with suppress(OSError):
                self._file.flush()
