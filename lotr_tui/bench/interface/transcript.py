"""Scrolling and typing in a long transcript, compared with a short one; both sessions are opened from the list."""

import tempfile
from collections.abc import Iterator
from itertools import chain, cycle, islice
from pathlib import Path

from engine.config import BUNDLED
from engine.generation.settings import SamplerSettings
from engine.runs.directory import resolve_run
from engine.runs.loading import load_model
from lotr_tui.bench.interface.keys import type_keys
from lotr_tui.bench.measurement import Measurement, latency_percentile, median_of_runs, nearest_rank_quantile
from lotr_tui.bench.programs import INPUT_READY_TEXT, SESSION_COMMAND, run_in_terminal
from lotr_tui.bench.terminal import Terminal
from lotr_tui.session.saved_session import SavedReply, SavedToken
from lotr_tui.session.session_file import SessionWriter

FEW_REPLIES, MANY_REPLIES = 5, 5000
TOKENS_PER_REPLY = 60
"""Length of a reply; five of them fill more than a screen of 80x24."""
KEYS_PER_RUN = 40
"""Page keys, and typed keys, in each run."""
MAX_RATIO = 1.5
"""Upper limit of the latency with many replies divided by that with few; the ideal is 1, plus noise."""
_PAGE_UP_KEY, _PAGE_DOWN_KEY, _SESSIONS_KEY = b"\x1b[5~", b"\x1b[6~", b"\x13"


def measure_transcript(repeat: int) -> Iterator[Measurement]:
    """Measure page keys and typed keys with few and with many replies."""
    sizes, actions = (FEW_REPLIES, MANY_REPLIES), ("page key", "typed key")
    latencies: dict[tuple[str, int], list[list[float]]] = {(action, size): [] for action in actions for size in sizes}
    with tempfile.TemporaryDirectory() as folder:
        homes = {size: Path(folder) / str(size) for size in sizes}
        for size, home in homes.items():
            write_session(home / "sessions", size)
        for _ in range(repeat):
            for size, home in homes.items():
                with run_in_terminal(SESSION_COMMAND, 80, 24, home=home) as terminal:
                    for action, seconds in zip(actions, _scroll_and_key_latencies(terminal), strict=True):
                        latencies[action, size].append(seconds)
    for action in actions:
        for size in sizes:
            seconds = list(chain.from_iterable(latencies[action, size]))
            yield latency_percentile(f"{action} to its output, {size:,} replies", seconds)
        few, many = ([nearest_rank_quantile(sorted(run), 0.95) for run in latencies[action, size]] for size in sizes)
        ratios = [slow / fast for slow, fast in zip(many, few, strict=True)]
        name = f"{action}, ratio of {MANY_REPLIES:,} replies to {FEW_REPLIES:,}"
        yield median_of_runs(name, "", ratios, MAX_RATIO)


def _scroll_and_key_latencies(terminal: Terminal) -> tuple[list[float], list[float]]:
    """Open the only saved session, and return the seconds of each page key and of each typed key."""
    terminal.press(_SESSIONS_KEY, "saved")
    terminal.read_until_quiet(0.3, 3)
    terminal.press(b"\r", INPUT_READY_TEXT)
    terminal.read_until_quiet(0.5, 10)
    page_latencies = []
    for i in range(KEYS_PER_RUN):
        page_latencies.append(terminal.press(_PAGE_DOWN_KEY if i % 2 else _PAGE_UP_KEY))
        terminal.read_until_quiet(0.05, 0.5)
    return page_latencies, type_keys(terminal, KEYS_PER_RUN)


def write_session(folder: Path, num_replies: int) -> None:
    """Write a saved session whose replies are words of the bundled model."""
    tokenizer = load_model(resolve_run(None)).decoder.tokenizer
    word_ids = cycle(range(2, len(tokenizer)))
    writer = SessionWriter(BUNDLED, folder)
    settings = SamplerSettings(max_tokens=TOKENS_PER_REPLY)
    for number in range(num_replies):
        ids = list(islice(word_ids, TOKENS_PER_REPLY))
        tokens = tuple(
            SavedToken(id=id, text=tokenizer.tokens[id], logprob=-5.0, prob=0.01, rank=9, entropy=6.0) for id in ids
        )
        reply = SavedReply(
            id=number,
            parent_id=None,
            parent_offset=0,
            prompt=" ".join(tokenizer.tokens[id] for id in ids[:3]),
            reply_mode="continue",
            tokens=tokens,
            seed=number,
            settings=settings,
            reason="length",
            tokens_per_second=1000.0,
            model=BUNDLED,
        )
        writer.save(reply)
    writer.close()
