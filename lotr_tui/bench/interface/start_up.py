"""Start-up times: first generated word, first paint, first key, complete session, `--help`."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from engine.presets import get_preset
from lotr_tui.bench.interface.slider import write_random_run
from lotr_tui.bench.measurement import Measurement, alternate, compare, median_of_runs
from lotr_tui.bench.programs import BARE_COMMAND, INPUT_READY_TEXT, MODEL_READY_TEXT, PROMPT, SESSION_COMMAND
from lotr_tui.bench.terminal import TIMEOUT_SECONDS, BenchError, Terminal

_BARE_TYPER_COMMAND = [sys.executable, "-c", "import typer; typer.run(lambda: None)"]
TRANSFORMER_VOCABULARY_SIZE = 2048
"""Tokens of the Transformer: as many as the byte pairs of its preset."""
_MIN_PAINTED_LINES = 3
"""Lines that are not empty once the screen counts as painted."""


def measure_startup(repeat: int) -> Iterator[Measurement]:
    """Measure the start-up times, each beside a minimal program of the same kind."""
    pairs = alternate(_first_word_seconds, _import_torch_seconds, repeat)
    name = "generate, from a cold start to the first word"
    yield from compare(name, "import torch", "s", pairs, 0.6, ratio_upper_limit=0.34)
    pairs = alternate(partial(first_paint_seconds, SESSION_COMMAND), partial(first_paint_seconds, BARE_COMMAND), repeat)
    name, baseline_name = "first paint of the session, 80x24", "first paint of a bare Textual app"
    yield from compare(name, baseline_name, "s", pairs, ratio_upper_limit=1.5)
    starts = [_first_key_and_ready_seconds() for _ in range(repeat)]
    yield median_of_runs("key press at the first paint to its echo", "ms", [1000 * key for key, _ in starts])
    yield median_of_runs("start of the session with its model, 80x24", "s", [ready for _, ready in starts])
    commands = ([*SESSION_COMMAND, "--help"], [*_BARE_TYPER_COMMAND, "--help"])
    pairs = alternate(partial(_run_seconds, commands[0]), partial(_run_seconds, commands[1]), repeat)
    yield from compare("--help", "--help of a bare Typer program", "s", pairs, ratio_upper_limit=1.5)


def measure_transformer_startup(repeat: int) -> Iterator[Measurement]:
    """Measure `generate` with a Transformer of the preset `gpt`, from a cold start to the first word."""
    with tempfile.TemporaryDirectory() as folder:
        run = write_random_run(Path(folder) / "random", TRANSFORMER_VOCABULARY_SIZE, get_preset("gpt"))
        pairs = alternate(lambda: _first_word_seconds("aaa aab", run), _import_torch_seconds, repeat)
    name = "generate with a Transformer, from a cold start to the first word"
    yield from compare(name, "import torch", "s", pairs, ratio_upper_limit=0.333)


def _import_torch_seconds() -> float:
    return _run_seconds([sys.executable, "-c", "import torch"])


def _first_word_seconds(prompt: str = PROMPT, run: Path | None = None) -> float:
    command = [*SESSION_COMMAND, "generate", prompt, "--seed", "0", *([] if run is None else ["--run", str(run)])]
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        os.read(process.stdout.fileno(), 1)
        seconds = time.perf_counter() - started
        process.stdout.read()
    return seconds


def _run_seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def _first_key_and_ready_seconds() -> tuple[float, float]:
    """Return the seconds from a key press at the first paint to its echo, and from the start to the welcome text."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as home, Terminal(SESSION_COMMAND, 80, 24, Path(home)).spawn() as terminal:
        terminal.read_until(INPUT_READY_TEXT)
        key_seconds = terminal.press(b"z", "z")
        terminal.read_until(MODEL_READY_TEXT)
        return key_seconds, time.perf_counter() - started


def first_paint_seconds(command: list[str]) -> float:
    """Return the seconds from the start of `command` until an 80x24 screen counts as painted."""
    import pyte  # an optional dependency

    screen = pyte.Screen(80, 24)
    stream = pyte.ByteStream(screen)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as home, Terminal(command, 80, 24, Path(home)).spawn() as terminal:
        while time.perf_counter() - started < TIMEOUT_SECONDS:
            stream.feed(terminal.read())
            if sum(bool(line.strip()) for line in screen.display) >= _MIN_PAINTED_LINES:
                return time.perf_counter() - started
    raise BenchError(f"{' '.join(command[1:3])} painted nothing within {TIMEOUT_SECONDS:.0f} s")
