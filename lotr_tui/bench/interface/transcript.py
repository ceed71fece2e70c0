"""Whether a long transcript is as fast as a short one: sessions of 5 and of 5,000 replies, opened as a person would."""

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from engine.config import BUNDLED
from engine.generation.settings import SamplerSettings
from engine.runs.store import load, resolve
from lotr_tui.bench.figures import Figure, nearest_rank, percentile_95
from lotr_tui.bench.interface.keys import type_keys
from lotr_tui.bench.subjects import READY, SESSION_COMMAND, TYPEABLE, running
from lotr_tui.bench.terminal import Terminal
from lotr_tui.session.saved_session import Node, Word
from lotr_tui.session.session_file import SessionWriter

FEW, MANY = 5, 5000
WORDS = 60
"""A reply: five of them are more than a screen of 80x24."""
KEYS = 40
"""A run, of each kind."""
RATIO = 1.5
"""The most that many replies may cost; about 1 is what is asked, and a percentile is never measured quite alike."""
_UP, _DOWN, _SESSIONS = b"\x1b[5~", b"\x1b[6~", b"\x13"


def transcript(repeat: int, few: int = FEW, many: int = MANY) -> Iterator[Figure]:
    """Pages up and down, and keys typed, with `few` replies and with `many`."""
    scrolled: dict[int, list[float]] = {few: [], many: []}
    typed: dict[int, list[float]] = {few: [], many: []}
    ratios: dict[str, list[float]] = {"scroll": [], "type": []}
    with tempfile.TemporaryDirectory() as folder:
        homes = {replies: Path(folder) / str(replies) for replies in (few, many)}
        for replies, home in homes.items():
            write_session(home / "sessions", replies)
        for _ in range(repeat):
            of_run: dict[int, tuple[list[float], list[float]]] = {}
            for replies, home in homes.items():
                with running(SESSION_COMMAND, 80, 24, READY, home) as terminal:
                    of_run[replies] = _scroll_and_type(terminal)
                scrolled[replies] += of_run[replies][0]
                typed[replies] += of_run[replies][1]
            for number, name in enumerate(ratios):
                times = [sorted(of_run[replies][number]) for replies in (few, many)]
                ratios[name].append(nearest_rank(times[1], 0.95) / nearest_rank(times[0], 0.95))
    for name, latencies in (("scroll", scrolled), ("type", typed)):
        for replies in (few, many):
            yield percentile_95(f"{name}, {replies:,} replies", latencies[replies])
        runs = ratios[name]
        yield Figure(f"ratio of {name}, {many:,} replies to {few:,}", "", statistics.median(runs), tuple(runs), RATIO)


def _scroll_and_type(terminal: Terminal) -> tuple[list[float], list[float]]:
    """Open the one session there is; seconds of each page, and of each key."""
    terminal.press(_SESSIONS, "saved")
    terminal.settle(0.3, 3)
    terminal.press(b"\r", TYPEABLE)
    terminal.settle(0.5, 10)
    scrolls = []
    for number in range(KEYS):
        scrolls.append(terminal.press(_DOWN if number % 2 else _UP))
        terminal.settle(0.05, 0.5)
    return scrolls, type_keys(terminal, KEYS)


def write_session(folder: Path, replies: int) -> None:
    """A saved session of so many replies, of words that the bundled model knows."""
    vocabulary = load(resolve(None)).decoder.vocabulary
    known = range(2, len(vocabulary))
    writer = SessionWriter(BUNDLED, folder)
    settings = SamplerSettings(max_tokens=WORDS)
    for number in range(replies):
        ids = [known[(number * WORDS + place) % len(known)] for place in range(WORDS)]
        words = tuple(Word(id, vocabulary.words[id], -5.0, 0.01, 9, 6.0) for id in ids)
        prompt = " ".join(vocabulary.words[id] for id in ids[:3])
        writer.keep(Node(number, None, 0, prompt, "continue", words, number, settings, "length", 1000.0, BUNDLED))
    writer.close()
