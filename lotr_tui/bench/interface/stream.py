"""Words streamed to the screen: duration, key latency meanwhile, and bytes per word."""

import time
from collections.abc import Iterator

from lotr_tui.bench import programs
from lotr_tui.bench.measurement import Measurement, latency_percentile, median_of_runs
from lotr_tui.bench.terminal import TIMEOUT_SECONDS, BenchError, Terminal, strip_control_sequences

TYPED_KEYS = "#@%&"
"""Characters that are typed while words stream; they occur in no word and in almost no control sequence."""
KEY_INTERVAL = 0.25
"""Seconds between two typed keys."""


def measure_stream(repeat: int) -> Iterator[Measurement]:
    """Measure 1,000 words at 200 words/s while keys are typed, without and with a training in the session."""
    for training in (False, True):
        durations: list[float] = []
        latencies: list[float] = []
        for _ in range(repeat):
            command = programs.endless_session_command(1000, 200, training=training)
            ready_text = programs.TRAINING_READY_TEXT if training else programs.MODEL_READY_TEXT
            with programs.run_in_terminal(command, 160, 45, ready_text) as terminal:
                terminal.write(programs.PROMPT.encode() + b"\r")
                started = time.perf_counter()
                latencies += _type_until(terminal, _reply_end_text(1000))
                durations.append(time.perf_counter() - started)
        condition = " while training" if training else ""
        yield median_of_runs(f"1,000 words at 200 words/s on the screen{condition} (ideal: 5 s)", "s", durations, 6.5)
        yield latency_percentile(f"key press to its echo while words stream{condition}", latencies, 100)


def measure_bytes_per_word(repeat: int) -> Iterator[Measurement]:
    """Measure the bytes sent to an 80x24 terminal per word, from the prompt to the end of the reply."""
    for num_words, pace, pace_name in ((200, 25, "25 words/s"), (1000, 0, "full speed")):
        runs = []
        for _ in range(repeat):
            with programs.run_in_terminal(programs.endless_session_command(num_words, pace), 80, 24) as terminal:
                terminal.write(programs.PROMPT.encode())
                terminal.read_until_quiet(0.5, 3)
                terminal.write(b"\r")
                runs.append(terminal.read_until(_reply_end_text(num_words)) / num_words)
        yield median_of_runs(f"output per word, streaming at {pace_name}, 80x24", "bytes", runs, 1000)


def _reply_end_text(num_words: int) -> str:
    """Return the text below a reply that reached its maximum length."""
    return f"stopped at {num_words:,} words"


def _type_until(terminal: Terminal, end_text: str) -> list[float]:
    """Type a key every `KEY_INTERVAL` seconds until `end_text` is shown, and return the seconds to each echo."""
    latencies: list[float] = []
    pending_key, pressed_at, recent = b"", 0.0, b""
    started = time.perf_counter()
    due_at = started + 0.2
    while True:
        output = terminal.read(0.005)
        now = time.perf_counter()
        if pending_key and pending_key in output:
            latencies.append(now - pressed_at)
            pending_key = b""
        recent = (recent + output)[-20_000:]
        if output and end_text in strip_control_sequences(recent):
            return latencies
        if not pending_key and now >= due_at:
            pending_key = TYPED_KEYS[len(latencies) % len(TYPED_KEYS)].encode()
            pressed_at, due_at = now, now + KEY_INTERVAL
            terminal.write(pending_key)
        if now - started > TIMEOUT_SECONDS:
            raise BenchError(f"{end_text!r} was not shown within {TIMEOUT_SECONDS:.0f} s")
