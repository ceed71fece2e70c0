"""The class: its first paint beside the session's, and the latency from a key to the changed figure."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from lotr_tui.bench.interface.start_up import first_paint_seconds
from lotr_tui.bench.measurement import Measurement, alternate, compare, latency_percentile
from lotr_tui.bench.programs import SESSION_COMMAND, run_in_terminal
from lotr_tui.bench.terminal import BenchError, Terminal

CLASS_COMMAND = [*SESSION_COMMAND, "learn"]
BASELINE_COMMAND = [*SESSION_COMMAND, "--pace", "25"]
"""Session with an option, as a command is parsed: without both, no parser is imported."""
WIDTH, HEIGHT = 120, 35
"""Size of a terminal that shows the whole figure beside the text."""
KEYS_PER_RUN = 16
QUIET_SECONDS = 0.25
"""Seconds without output after which a figure counts as complete."""
LOADING_TIMEOUT = 30.0
"""Maximum seconds to wait for the figure, which may still load other models, to become quiet."""
_LEFT, _RIGHT, _UP, _DOWN, _BACKSPACE = b"\x1b[D", b"\x1b[C", b"\x1b[A", b"\x1b[B", b"\x7f"


@dataclass(frozen=True)
class Gesture:
    """Two keys that are pressed in turn, of which the second undoes the first."""

    name: str
    keys: tuple[bytes, bytes]
    upper_limit: float = 50
    """Maximum milliseconds until the figure has changed."""
    prepare: bytes = b""
    """Keys to press before, such as tabs to a control."""
    min_rows: int = 2
    """Minimum rows of the screen that change: the control's own, and one of the figure."""


LETTER = Gesture("letter in the line", (b"x", _BACKSPACE))
GESTURES: dict[str, tuple[str, Sequence[Gesture]]] = {
    "tokens": ("cut-off ├", (LETTER, Gesture("step of the cut-off", (_RIGHT, _LEFT), prepare=b"\t"))),
    "counting": ("order ├", (LETTER, Gesture("step of the order", (_LEFT, _RIGHT), prepare=b"\t"))),
    "perplexity": (
        "window ├",
        (
            Gesture("step to the next word", (_RIGHT, _LEFT)),
            Gesture("step of the window over the held-out text", (_LEFT, _RIGHT), 100, prepare=b"\t"),
        ),
    ),
    "memory": ("unit ├", (LETTER, Gesture("step to the next unit", (_DOWN, _UP)))),
    "training": ("rate ├", (Gesture("step of the learning rate", (_RIGHT, _LEFT), min_rows=1),)),
    "overfitting": ("dropout ├", (Gesture("step of the dropout", (_RIGHT, _LEFT), min_rows=1),)),
    "sampling": ("temperature ├", (LETTER, Gesture("step of the temperature", (_RIGHT, _LEFT), prepare=b"\t"))),
    "attention": ("bits/char", (LETTER, Gesture("step to the next head", (_DOWN, _UP), prepare=b"\t"))),
}
"""Text on the screen once the figure of a chapter is loaded, such as the label of its slider, and gestures in it."""


def measure_class(repeat: int) -> Iterator[Measurement]:
    """Measure the first paint, and gestures in each chapter, whose figure is opened again in each run."""
    paint_class, paint_session = (partial(first_paint_seconds, each) for each in (CLASS_COMMAND, BASELINE_COMMAND))
    pairs = alternate(paint_class, paint_session, repeat)
    yield from compare(
        "first paint of the class, 80x24", "first paint of the session", "s", pairs, ratio_upper_limit=1.1
    )
    for chapter, (ready_text, gestures) in GESTURES.items():
        latencies: list[list[tuple[float, float]]] = [[] for _ in gestures]
        for _ in range(repeat):
            with run_in_terminal([*CLASS_COMMAND, chapter], WIDTH, HEIGHT, ready_text) as terminal:
                terminal.read_until_quiet(1, LOADING_TIMEOUT)
                for seconds, gesture in zip(latencies, gestures, strict=True):
                    seconds += figure_latencies(terminal, gesture)
        for seconds, gesture in zip(latencies, gestures, strict=True):
            name = f"chapter {chapter}: {gesture.name} to"
            reactions, completions = zip(*seconds, strict=True)
            yield latency_percentile(f"{name} the changed figure", reactions, percent=50)
            yield latency_percentile(f"{name} the changed figure", reactions, gesture.upper_limit)
            yield latency_percentile(f"{name} its last change", completions)


def figure_latencies(terminal: Terminal, gesture: Gesture, count: int = KEYS_PER_RUN) -> list[tuple[float, float]]:
    """Press keys, and return for each the seconds until the figure has changed, and until its last change.

    The screen is compared as text: what changes in colour only is not seen.

    Raises:
        BenchError: If a key changes fewer rows than the gesture should.
    """
    screen = _Screen(terminal)
    terminal.write(gesture.prepare)
    screen.settle()
    return [_press(screen, gesture, gesture.keys[number % 2]) for number in range(count)]


def _press(screen: "_Screen", gesture: Gesture, key: bytes) -> tuple[float, float]:
    before, reaction, completion = screen.rows, 0.0, 0.0
    started = time.perf_counter()
    screen.terminal.write(key)
    for rows, read_at in screen.changes():
        completion = read_at - started
        if not reaction and sum(old != new for old, new in zip(before, rows, strict=True)) >= gesture.min_rows:
            reaction = completion
    if not reaction:
        raise BenchError(f"{screen.terminal} did not change its figure at a {gesture.name}")
    return reaction, completion


class _Screen:
    """Rows of text that a terminal shows."""

    def __init__(self, terminal: Terminal) -> None:
        import pyte  # an optional dependency

        self.terminal = terminal
        self._screen = pyte.Screen(WIDTH, HEIGHT)
        self._stream = pyte.ByteStream(self._screen)
        self.rows: list[str] = list(self._screen.display)

    def settle(self) -> None:
        """Read until the output is quiet."""
        for _ in self.changes():
            pass

    def changes(self) -> Iterator[tuple[list[str], float]]:
        """Yield the rows after each change, and the time when it was read, until the output is quiet."""
        while output := self.terminal.read(QUIET_SECONDS):
            read_at = time.perf_counter()
            self._stream.feed(output)
            if (rows := list(self._screen.display)) != self.rows:
                self.rows = rows
                yield rows, read_at
