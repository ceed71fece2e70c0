"""Screens of a program in a pseudo-terminal, with the times at which they were shown."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pyte

from tests.support.terminal import Terminal

FRAME_INTERVAL = 0.1
"""Minimum seconds between two frames."""
TIMEOUT = 900.0


@dataclass(frozen=True)
class Cell:
    """One character of the screen and its colours, `RRGGBB` or "default"."""

    text: str
    foreground: str
    background: str
    bold: bool = False
    italic: bool = False
    underlined: bool = False


Screen = tuple[tuple[Cell, ...], ...]
"""Rows of cells, from the top."""


@dataclass(frozen=True)
class Frame:
    """A screen and the seconds for which it is shown."""

    screen: Screen
    seconds: float


class Recorder:
    """Keys for a program in a terminal, and the frames that it paints."""

    def __init__(self, terminal: Terminal, width: int, height: int) -> None:
        """Record the output of a started program."""
        self._terminal = terminal
        self._pyte_screen = pyte.Screen(width, height)
        self._stream = pyte.ByteStream(self._pyte_screen)
        self._screens: list[tuple[float, Screen]] = []
        self._time = 0.0
        self._clock = time.monotonic()
        self.is_paused = False
        """True while the time of the recording stands still and no frame is taken."""

    @property
    def text(self) -> str:
        """The characters on the screen."""
        return "\n".join(self._pyte_screen.display)

    def wait(self, seconds: float) -> None:
        """Record for `seconds` of the clock."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._read(min(left, 0.02))

    def wait_until(self, *texts: str) -> None:
        """Record until one of `texts` is on the screen."""
        end = time.monotonic() + TIMEOUT
        while not any(text in self.text for text in texts):
            if time.monotonic() > end:
                raise TimeoutError(f"{texts} was not shown:\n{self.text}")
            self._read(0.02)

    def wait_until_gone(self, text: str) -> None:
        """Record until `text` is no longer on the screen."""
        end = time.monotonic() + TIMEOUT
        while text in self.text:
            if time.monotonic() > end:
                raise TimeoutError(f"{text} is still shown:\n{self.text}")
            self._read(0.02)

    def press(self, keys: bytes, times: int = 1, pause: float = 0.25) -> None:
        """Press keys `times` times, with a pause after each."""
        for _ in range(times):
            self._terminal.write(keys)
            self.wait(pause)

    def type(self, text: str, pause: float = 0.07) -> None:
        """Type a text, as fast as a person does."""
        for character in text:
            self.press(character.encode(), pause=pause)

    @contextmanager
    def compress(self, seconds: float) -> Iterator[None]:
        """Shorten or lengthen the recording of the context to `seconds`."""
        first, start = len(self._screens), self._time
        yield
        factor, compressed = seconds / (self._time - start), self._screens[:first]
        for recorded_at, screen in self._screens[first:]:
            shown_at = start + (recorded_at - start) * factor
            if len(compressed) > first and shown_at - compressed[-1][0] < FRAME_INTERVAL:
                shown_at, _ = compressed.pop()  # a later screen replaces the one before
            compressed.append((shown_at, screen))
        self._screens, self._time = compressed, start + seconds

    def frames(self) -> list[Frame]:
        """Return the recorded frames without repetitions."""
        ends = [start for start, _ in self._screens[1:]] + [self._time]
        frames: list[Frame] = []
        for (start, screen), end in zip(self._screens, ends, strict=True):
            if frames and frames[-1].screen == screen:
                frames[-1] = Frame(screen, frames[-1].seconds + end - start)
            elif end > start:
                frames.append(Frame(screen, end - start))
        return frames

    def _read(self, timeout: float) -> None:
        output = self._terminal.read(timeout)
        now = time.monotonic()
        if not self.is_paused:
            self._time += now - self._clock
        self._clock = now
        if output:
            self._stream.feed(output)
        if self._screens and self._time - self._screens[-1][0] < FRAME_INTERVAL:
            return
        if self._pyte_screen.dirty and not self.is_paused:
            self._pyte_screen.dirty.clear()
            self._screens.append((self._time, self._copy_screen()))

    def _copy_screen(self) -> Screen:
        screen = self._pyte_screen
        return tuple(
            tuple(_cell(screen.buffer[row][column]) for column in range(screen.columns)) for row in range(screen.lines)
        )


def _cell(char: pyte.screens.Char) -> Cell:
    colors = (char.bg, char.fg) if char.reverse else (char.fg, char.bg)
    return Cell(char.data, *colors, char.bold, char.italics, char.underscore)
