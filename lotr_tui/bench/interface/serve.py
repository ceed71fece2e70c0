"""Latency from a key to the frame that shows it in a browser, and memory per browser, of `lotr-tui serve`."""

import random
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
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
NUM_BROWSERS = 4
"""Browsers at once."""
KEY_INTERVAL = (0.1, 0.3)
"""Shortest and longest time between two keys in a browser, in seconds: people type five per second."""


def measure_serve(repeat: int) -> Iterator[Measurement | SkippedMeasurement]:
    """Measure one browser, and four with a session each: that type independently, and at the same moments."""
    if (missing := missing_for_browser()) is not None:
        yield SkippedMeasurement("key press to its frame in a browser", missing)
        return
    conditions: dict[str, tuple[int, Callable[[Sequence[BrowserTab], int], list[float]]]] = {
        "one": (1, type_independently),
        f"{NUM_BROWSERS} at once": (NUM_BROWSERS, type_independently),
        f"{NUM_BROWSERS} that press the same key at once": (NUM_BROWSERS, type_together),
    }
    latencies: dict[str, list[float]] = {name: [] for name in conditions}
    app_memory: list[float] = []
    server_memory: list[float] = []
    for _ in range(repeat):
        for name, (count, type_keys) in conditions.items():
            with tempfile.TemporaryDirectory() as home, ServeProcess(Path(home)) as server, run_chromium() as browser:
                tabs = [open_tab(browser, server.url, programs.MODEL_READY_TEXT) for _ in range(count)]
                latencies[name] += type_keys(tabs, -(-MIN_KEYS // repeat // count))
                app_memory += [proportional_megabytes(pid) for pid in server.app_pids()]
                server_memory.append(proportional_megabytes(server.pid))
    for name, seconds in latencies.items():
        yield latency_percentile(f"key press to its frame in a browser, {name}", seconds, percent=50)
        yield latency_percentile(f"key press to its frame in a browser, {name}", seconds, MAX_LATENCY)
    yield median_of_runs("memory per browser: its app (PSS)", "MB", app_memory)
    yield median_of_runs("memory of the server (PSS)", "MB", server_memory)


def type_independently(tabs: Sequence[BrowserTab], count: int) -> list[float]:
    """Press `count` keys in every tab, in each at its own random moments, and return the seconds to each frame."""
    rng = random.Random(0)
    keys = [playwright_keys(count) for _ in tabs]
    latencies = []
    due = [(time.perf_counter() + rng.uniform(*KEY_INTERVAL), number, False) for number in range(len(tabs))]
    while due:
        due.sort()
        moment, number, is_waiting = due.pop(0)
        time.sleep(max(0.0, moment - time.perf_counter()))
        if is_waiting:
            latencies.append(tabs[number].latency())  # usually known for long
        if (key := next(keys[number], None)) is not None:
            tabs[number].press_and_expect(*key)
            due.append((time.perf_counter() + rng.uniform(*KEY_INTERVAL), number, True))
    return latencies


def type_together(tabs: Sequence[BrowserTab], count: int) -> list[float]:
    """Press `count` keys in every tab, the same key in all of them at once, and return the seconds to each frame."""
    rng = random.Random(0)
    latencies = []
    for key in playwright_keys(count):
        for tab in tabs:
            tab.press_and_expect(*key)
        latencies += [tab.latency() for tab in tabs]
        time.sleep(rng.uniform(*KEY_INTERVAL))
    return latencies


def playwright_keys(count: int) -> Iterator[tuple[str, str]]:
    """Yield keys by the names of Playwright, each with the text that the prompt shows after it."""
    for key, expected in islice(keystrokes(TYPED_TEXT), count):
        yield {b"\x7f": "Backspace", b" ": "Space"}.get(key) or key.decode(), expected


def proportional_megabytes(pid: int) -> float:
    """Return the memory of a process, with each page that it shares divided by the number of its users."""
    memory = psutil.Process(pid).memory_full_info()
    return float(getattr(memory, "pss", memory.uss)) / 1e6
