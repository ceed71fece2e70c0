"""The log of a run: for people, so that of a training that goes on for weeks the latest part is enough."""

from pathlib import Path

from engine.storage.files import Appender

MOST_BYTES = 2_000_000
"""Of a log; a longer one becomes the one before, which is then forgotten."""


def make_way(path: Path) -> None:
    """Let the log at `path` be the one before.

    Raises:
        OSError: the folder cannot be written.
    """
    path.replace(path.with_name(f"{path.stem}.1{path.suffix}"))


class LogFile:
    """Adds lines to a log. What it held when it became too long is in the file beside, as `log.1.txt`."""

    def __init__(self, path: Path) -> None:
        """Open `path`.

        Raises:
            OSError: as `Appender`.
        """
        self._file = Appender(path)

    def write(self, text: str) -> None:
        """Add `text`; what cannot be written waits."""
        path = self._file.path
        try:
            if path.stat().st_size > MOST_BYTES and not self._file.problem:
                make_way(path)
                self._file.close()
                self._file = Appender(path)
        except OSError:
            pass  # it grows until there is room, or somebody mends the folder
        self._file.write(text)

    def close(self) -> None:
        """Try once more to write what waits, and close."""
        self._file.close()
