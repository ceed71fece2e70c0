"""From a key to the bytes that show it: letters typed into the prompt, and deleted again."""

import random
from collections.abc import Iterator
from itertools import islice

from lotr_tui.bench.figures import Figure, percentile_95
from lotr_tui.bench.subjects import BARE_COMMAND, BARE_READY, READY, SESSION_COMMAND, endless_command, running
from lotr_tui.bench.terminal import Terminal

TEXT = "bilbo baggins is a very old friend"
LEAST_KEYS = 200
"""In all runs together; by fewer, a 95th percentile says little."""


def keys(repeat: int) -> Iterator[Figure]:
    """An idle session, on a small terminal and on a wide one, where all panes are seen; a bare app; a training."""
    a_run = -(-LEAST_KEYS // repeat)
    small: list[float] = []
    wide: list[float] = []
    bare: list[float] = []
    training: list[float] = []
    for _ in range(repeat):
        for command, width, height, ready, latencies in (
            (SESSION_COMMAND, 80, 24, READY, small),
            (BARE_COMMAND, 80, 24, BARE_READY, bare),
            (SESSION_COMMAND, 160, 45, READY, wide),
            (endless_command(30, 0, training=True), 160, 45, "learning", training),
        ):
            with running(command, width, height, ready) as terminal:
                latencies += type_keys(terminal, a_run)
    yield percentile_95("key to its bytes, idle session, 80x24", small, 15)
    yield percentile_95("key to its bytes, idle session, 160x45", wide, 15)
    yield percentile_95("key to its bytes, bare Textual app, 80x24", bare)
    yield percentile_95("key to its bytes while a training goes on, 160x45", training, 60)


def type_keys(terminal: Terminal, number: int) -> list[float]:
    """Type so many keys, each when the last one's bytes have all come: seconds to the bytes that show it."""
    chance = random.Random(0)
    latencies = []
    for key, shows in islice(keystrokes(TEXT), number):
        latencies.append(terminal.press(key, shows))
        terminal.settle(0.03, 0.3)
        terminal.settle(chance.uniform(0.01, 0.06), 0.06)  # in step with no timer
    return latencies


def keystrokes(text: str) -> Iterator[tuple[bytes, str]]:
    """Keys without end that type `text` and delete all but its first letter; and what stands there after each.

    Behind the text stands the cursor, on a blank: so each is told from the one before, but where a blank is deleted.
    """
    yield text[0].encode(), text[0] + " "
    while True:
        for end in range(2, len(text) + 1):
            yield text[end - 1].encode(), text[:end] + " "
        for end in range(len(text) - 1, 0, -1):
            yield b"\x7f", text[:end] + " "
