"""From a cold start: the first word, the first paint."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from lotr_tui.bench.figures import Figure, paired
from lotr_tui.bench.subjects import BARE_COMMAND, PROMPT, SESSION_COMMAND
from lotr_tui.bench.terminal import LIMIT_SECONDS, BenchError, Terminal


def start(repeat: int) -> Iterator[Figure]:
    """`generate` to its first word beside the import of torch; the session's first paint beside a bare app's."""
    yield from paired(
        "generate, cold, to the first word", "s", _first_word, _import_torch, "import torch", repeat, 0.6, 0.5
    )
    yield from paired(
        "first paint of the session, 80x24",
        "s",
        lambda: _paint_seconds(SESSION_COMMAND),
        lambda: _paint_seconds(BARE_COMMAND),
        "first paint of a bare Textual app",
        repeat,
        ratio_limit=2,
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
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import torch"], check=True)
    return time.perf_counter() - started


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
