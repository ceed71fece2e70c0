"""What is written to a terminal, which may be gone."""

from contextlib import suppress

from textual.drivers import linux_driver
from textual.drivers._writer_thread import WriterThread


def outlive_terminal() -> None:
    """Have Textual's writer outlive its terminal, so that whoever leaves does not wait for it."""
    linux_driver.WriterThread = Writer  # type: ignore[attr-defined]


class Writer(WriterThread):
    """Textual's own ends where it cannot write; then its queue fills, and the app waits for room in it for ever."""

    def run(self) -> None:
        """Write what comes until there is no terminal, then let it go."""
        gone = False
        while (text := self._queue.get()) is not None:
            if gone:
                continue
            try:
                self._file.write(text)
                if not self._queue.qsize():
                    self._file.flush()
            except OSError:
                gone = True
        if not gone:
            with suppress(OSError):
                self._file.flush()
