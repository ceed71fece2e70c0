"""Words on the screen as they come: whether they are smooth, and what they cost a slow line."""

import time
from collections.abc import Iterator

from lotr_tui.bench.figures import Figure, median, percentile_95
from lotr_tui.bench.subjects import PROMPT, READY, endless_command, running
from lotr_tui.bench.terminal import LIMIT_SECONDS, BenchError, Terminal, shown

KEYS = "#@%&"
"""Typed while words stream: characters that no word and hardly a control sequence has."""


def stream(repeat: int) -> Iterator[Figure]:
    """1,000 words at 200 a second, keys typed meanwhile; the same while a training goes on in the session."""
    for training in (False, True):
        durations: list[float] = []
        latencies: list[float] = []
        for _ in range(repeat):
            command = endless_command(1000, 200, training=training)
            with running(command, 160, 45, "learning" if training else READY) as terminal:
                terminal.write(PROMPT.encode() + b"\r")
                started = time.perf_counter()
                latencies += _type_until(terminal, "stopped at 1000 words")
                durations.append(time.perf_counter() - started)
        when = " while training" if training else ""
        yield median(f"1,000 words at 200/s on the screen{when} (ideal 5)", "s", durations, 6.5)
        yield percentile_95(f"key to screen while words stream{when}", latencies, 100)


def bytes_a_word(repeat: int) -> Iterator[Figure]:
    """Bytes to an 80x24 terminal for each word, from the prompt that is sent to the last word's line."""
    for words, pace, name in ((200, 25, "25 words/s"), (1000, 0, "full speed")):
        runs = []
        for _ in range(repeat):
            with running(endless_command(words, pace), 80, 24) as terminal:
                terminal.write(PROMPT.encode())
                terminal.settle(0.5, 3)
                terminal.write(b"\r")
                runs.append(terminal.until(f"stopped at {words} words") / words)
        yield median(f"bytes a word, streaming at {name}, 80x24", "bytes", runs, 1000)


def _type_until(terminal: Terminal, end: str) -> list[float]:
    """Type a key every quarter of a second until `end` is shown; seconds from each key to its sight."""
    latencies: list[float] = []
    typed, typed_at, tail = b"", 0.0, b""
    begun = time.perf_counter()
    due = begun + 0.2
    while True:
        output = terminal.read(0.005)
        now = time.perf_counter()
        if typed and typed in output:
            latencies.append(now - typed_at)
            typed = b""
        tail = (tail + output)[-20_000:]
        if output and end in shown(tail):
            return latencies
        if not typed and now >= due:
            typed, typed_at, due = KEYS[len(latencies) % len(KEYS)].encode(), now, now + 0.25
            terminal.write(typed)
        if now - begun > LIMIT_SECONDS:
            raise BenchError(f"{end!r} was not shown within {LIMIT_SECONDS:.0f} s")
