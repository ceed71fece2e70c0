"""From a cold start: the first word, the first paint."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lotr_tui.bench.figures import Figure, median, paired
from lotr_tui.bench.subjects import BARE_COMMAND, PROMPT, READY, SESSION_COMMAND, TYPEABLE
from lotr_tui.bench.terminal import LIMIT_SECONDS, BenchError, Terminal

_BARE_COMMAND_LINE = [sys.executable, "-c", "import typer; typer.run(lambda: None)"]


def start(repeat: int) -> Iterator[Figure]:
    """First word, first paint and the rest of the session, `--help`; each beside what is least for such a program."""
    yield from paired(
        "generate, cold, to the first word", "s", _first_word, _import_torch, "import torch", repeat, 0.6, 0.34
    )
    yield from paired(
        "first paint of the session, 80x24",
        "s",
        lambda: _paint_seconds(SESSION_COMMAND),
        lambda: _paint_seconds(BARE_COMMAND),
        "first paint of a bare Textual app",
        repeat,
        ratio_limit=1.5,
    )
    starts = [_key_and_whole() for _ in range(repeat)]
    yield median("a key pressed at the first paint to its bytes", "ms", [1000 * key for key, _ in starts])
    yield median("the session with its model, 80x24", "s", [whole for _, whole in starts])
    yield from paired(
        "--help",
        "s",
        lambda: _run_seconds([*SESSION_COMMAND, "--help"]),
        lambda: _run_seconds([*_BARE_COMMAND_LINE, "--help"]),
        "--help of a bare Typer program",
        repeat,
        ratio_limit=1.5,
    )


def _first_word() -> float:
    command = [*SESSION_COMMAND, "generate", PROMPT, "--seed", "0"]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        seconds = time.perf_counter() - started
        process.stdout.read()
    return seconds


def _import_torch() -> float:
    return _run_seconds([sys.executable, "-c", "import torch"])


def _run_seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _key_and_whole() -> tuple[float, float]:
    """Seconds from a key at the first paint to the bytes that show it; and from the start to the model's welcome."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as home, Terminal(SESSION_COMMAND, 80, 24, Path(home)).opened() as terminal:
        terminal.until(TYPEABLE)
        key = terminal.press(b"z", "z")
        terminal.until(READY)
        return key, time.perf_counter() - started


def _paint_seconds(command: list[str]) -> float:
    """From the start of `command` to three lines that are not empty, on an 80x24 terminal."""
    import pyte

    screen = pyte.Screen(80, 24)
    stream = pyte.ByteStream(screen)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as home, Terminal(command, 80, 24, Path(home)).opened() as terminal:
        while (seconds := time.perf_counter() - started) < LIMIT_SECONDS:
            stream.feed(terminal.read())
            if sum(bool(line.strip()) for line in screen.display) >= 3:
                return time.perf_counter() - started
    raise BenchError(f"{' '.join(command[1:3])} painted nothing within {seconds:.0f} s")
