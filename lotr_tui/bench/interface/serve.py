"""Latency from a key to the frame that shows it in a browser, and memory per browser, of `lotr-tui serve`."""

import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import psutil

from lotr_tui.bench import programs
from lotr_tui.bench.interface.browser import BrowserTab, ServeProcess, missing_for_browser, open_tab, run_chromium
from lotr_tui.bench.interface.keys import MIN_KEYS, keystrokes
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement, latency_percentile, median_of_runs

TYPED_TEXT = "i o a e u i o a e u i o a e u i o a"
"""Words of one letter, which the prompt does not complete, so that a blank follows each of them."""
MAX_LATENCY = 100.0
"""Milliseconds in which a character must be visible."""
WINDOW_SIZES = (1, 4)
"""Numbers of browsers at once."""


def measure_serve(repeat: int) -> Iterator[Measurement | SkippedMeasurement]:
    """Measure one browser, and four that type at the same moments, each with a session of its own."""
    if (missing := missing_for_browser()) is not None:
        yield SkippedMeasurement("key press to its frame in a browser", missing)
        return
    latencies: dict[int, list[float]] = {count: [] for count in WINDOW_SIZES}
    app_memory: list[float] = []
    server_memory: list[float] = []
    for _ in range(repeat):
        for count in WINDOW_SIZES:
            with tempfile.TemporaryDirectory() as home, ServeProcess(Path(home)) as server, run_chromium() as browser:
                tabs = [open_tab(browser, server.url, programs.MODEL_READY_TEXT) for _ in range(count)]
                latencies[count] += type_keys(tabs, -(-MIN_KEYS // repeat // count))
                app_memory += [proportional_megabytes(pid) for pid in server.app_pids()]
                server_memory.append(proportional_megabytes(server.pid))
    for count, seconds in latencies.items():
        name = f"key press to its frame in a browser, {count} at once"
        yield latency_percentile(name, seconds, percent=50)
        yield latency_percentile(name, seconds, MAX_LATENCY)
    yield median_of_runs("memory per browser: its app (PSS)", "MB", app_memory)
    yield median_of_runs("memory of the server (PSS)", "MB", server_memory)


def type_keys(tabs: Sequence[BrowserTab], count: int) -> list[float]:
    """Press `count` keys in every tab, the same key in all of them at once, and return the seconds to each frame."""
    rng = random.Random(0)
    latencies = []
    for key, expected in islice(keystrokes(TYPED_TEXT), count):
        name = "Backspace" if key == b"\x7f" else "Space" if key == b" " else key.decode()
        for tab in tabs:
            tab.press_and_expect(name, expected)
        latencies += [tab.latency() for tab in tabs]
        time.sleep(rng.uniform(0.1, 0.2))  # ten keys per second at most, as people type
    return latencies


def proportional_megabytes(pid: int) -> float:
    """Return the memory of a process, with each page that it shares divided by the number of its users."""
    memory = psutil.Process(pid).memory_full_info()
    return float(getattr(memory, "pss", memory.uss)) / 1e6
