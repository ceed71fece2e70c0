"""Latency from a key press to its echo: letters that are typed into the prompt and deleted again."""

import random
from collections.abc import Iterator
from itertools import islice

from lotr_tui.bench import programs
from lotr_tui.bench.measurement import Measurement, latency_percentile
from lotr_tui.bench.terminal import Terminal

TYPED_TEXT = "i zq a xj i qz a jx o zq i xj a qz"
"""Words without a completion, which would be shown where the blank after the typed text is expected."""
MIN_KEYS = 200
"""Minimum keys over all runs; with fewer, a 95th percentile is imprecise."""


def measure_key_latency(repeat: int) -> Iterator[Measurement]:
    """Measure an idle session on a small and on a wide terminal, a minimal app, and a session that trains."""
    session = (programs.SESSION_COMMAND, programs.MODEL_READY_TEXT)
    bare = (programs.BARE_COMMAND, programs.BARE_READY_TEXT)
    training = (programs.endless_session_command(30, 0, training=True), programs.TRAINING_READY_TEXT)
    conditions = (
        ("idle session, 80x24", session, (80, 24), 15),
        ("idle session, 160x45", session, (160, 45), 15),
        ("bare Textual app, 80x24", bare, (80, 24), None),
        ("session that trains, 160x45", training, (160, 45), 60),
    )
    latencies: list[list[float]] = [[] for _ in conditions]
    for _ in range(repeat):
        for seconds, (_, (command, ready_text), size, _) in zip(latencies, conditions, strict=True):
            with programs.run_in_terminal(command, *size, ready_text) as terminal:
                seconds += type_keys(terminal, -(-MIN_KEYS // repeat))
    for seconds, (name, _, _, upper_limit) in zip(latencies, conditions, strict=True):
        yield latency_percentile(f"key press to its echo, {name}", seconds, upper_limit)


def type_keys(terminal: Terminal, count: int) -> list[float]:
    """Type `count` keys, each after the output of the previous one, and return the seconds to each echo."""
    rng = random.Random(0)
    latencies = []
    for key, expected in islice(keystrokes(TYPED_TEXT), count):
        latencies.append(terminal.press(key, expected))
        terminal.read_until_quiet(0.03, 0.3)
        terminal.read_until_quiet(rng.uniform(0.01, 0.06), 0.06)  # avoids synchronization with the app's timers
    return latencies


def keystrokes(text: str) -> Iterator[tuple[bytes, str]]:
    """Yield endless keys that type `text` and delete all but its first letter, with the text shown after each key.

    The cursor after the text is shown as a blank, which distinguishes each text from the previous one, except where a
    blank is deleted.
    """
    yield text[0].encode(), text[0] + " "
    while True:
        for end in range(2, len(text) + 1):
            yield text[end - 1].encode(), text[:end] + " "
        for end in range(len(text) - 1, 0, -1):
            yield b"\x7f", text[:end] + " "
