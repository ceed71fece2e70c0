"""How fast it is on this machine: each figure a median of several runs, beside what it is compared with."""

import os
import pty
import select
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fcntl import ioctl
from signal import SIGKILL
from termios import TIOCSWINSZ

from engine.errors import UnusableInput

PROMPT = "Bilbo Baggins is"
BARE_APP = """
from textual.app import App
from textual.widgets import Footer, Header, Input, Static
class Bare(App):
    def compose(self):
        yield Header(); yield Static("hello"); yield Input(); yield Footer()
Bare().run()
"""
KEYS = "#@%&"
"""Typed while words stream: characters that no word and hardly a control sequence has."""
LIMIT_SECONDS = 60.0


@dataclass(frozen=True)
class Figure:
    """A measured figure: the median, and all runs."""

    name: str
    unit: str
    median: float
    runs: tuple[float, ...]


def measure(repeat: int) -> Iterator[Figure]:
    """All figures, one after the other.

    Raises:
        UnusableInput: pyte, which reads the screen from outside, is not installed.
    """
    try:
        import pyte  # noqa: F401
    except ImportError as error:
        raise UnusableInput("bench needs pyte to read the screen; pip install 'lotr-tui[dev]'") from error
    yield from _cold_start(repeat)
    yield _figure("words/s, bundled model, one core", "words/s", [_generation_rate() for _ in range(repeat)])
    yield from _first_paint(repeat)
    yield from _streaming(repeat, training=False)
    yield from _streaming(repeat, training=True)


def _figure(name: str, unit: str, runs: list[float]) -> Figure:
    return Figure(name, unit, statistics.median(runs), tuple(runs))


def _paired(
    name: str, unit: str, ours: Callable[[], float], other: Callable[[], float], against: str, repeat: int
) -> Iterator[Figure]:
    """Ours and the other in turn, so that both see the machine as it is; and the median of the ratios."""
    ours(), other()  # once unmeasured: files come from the disk the first time
    pairs = [(ours(), other()) for _ in range(repeat)]
    yield _figure(name, unit, [a for a, _ in pairs])
    yield _figure(against, unit, [b for _, b in pairs])
    yield _figure(f"ratio of {name} to {against}", "", [a / b for a, b in pairs])


def _cold_start(repeat: int) -> Iterator[Figure]:
    def first_word() -> float:
        command = [sys.executable, "-m", "lotr_tui", "generate", PROMPT, "--seed", "0"]
        started = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            os.read(process.stdout.fileno(), 1)
            seconds = time.perf_counter() - started
            process.stdout.read()
        return seconds

    def import_torch() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        return time.perf_counter() - started

    yield from _paired("generate, cold, to the first word", "s", first_word, import_torch, "import torch", repeat)


def _generation_rate() -> float:
    """Words a second of the sampler with the bundled model, in a process with one BLAS thread."""
    code = (
        "from engine.runs import load, resolve\n"
        "from engine.sampling import SamplerSettings, TokenEvent, encode_prompt, stream\n"
        "model = load(resolve(None)).decoder\n"
        f"ids = encode_prompt({PROMPT!r}, model.vocabulary).ids\n"
        "words = seconds = seed = 0\n"
        "while words < 3000:\n"
        "    for event in stream(model, ids, SamplerSettings(), seed):\n"
        "        if isinstance(event, TokenEvent): words += 1; seconds += event.seconds\n"
        "    seed += 1\n"
        "print(words / seconds)\n"
    )
    one = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    result = subprocess.run([sys.executable, "-c", code], env=os.environ | one, capture_output=True, check=True)
    return float(result.stdout)


def _first_paint(repeat: int) -> Iterator[Figure]:
    yield from _paired(
        "first paint of the session, 80x24",
        "s",
        lambda: _paint_seconds([sys.executable, "-m", "lotr_tui"]),
        lambda: _paint_seconds([sys.executable, "-c", BARE_APP]),
        "first paint of a bare Textual app",
        repeat,
    )


def _paint_seconds(command: list[str]) -> float:
    """From the start of `command` to three lines that are not empty, on an 80x24 terminal."""
    import pyte

    screen = pyte.Screen(80, 24)
    stream = pyte.ByteStream(screen)
    started = time.perf_counter()
    with _Terminal(command, 80, 24).opened() as terminal:
        while True:
            stream.feed(terminal.read())
            if sum(bool(line.strip()) for line in screen.display) >= 3:
                return time.perf_counter() - started


def _streaming(repeat: int, *, training: bool) -> Iterator[Figure]:
    """1,000 words at 200 a second on the screen, keys typed meanwhile."""
    durations: list[float] = []
    latencies: list[float] = []
    for _ in range(repeat):
        command = [sys.executable, "-m", "lotr_tui.bench", "training" if training else "playing"]
        with _Terminal(command, 160, 45).opened() as terminal:
            terminal.until(b"learning" if training else b"type a prompt")
            terminal.write(PROMPT.encode() + b"\r")
            started = time.perf_counter()
            latencies += _type_until(terminal, b"stopped at 1000 words")
            durations.append(time.perf_counter() - started)
    when = " while training" if training else ""
    yield _figure(f"1,000 words at 200/s on the screen{when} (ideal 5)", "s", durations)
    latencies.sort()
    name = f"key to screen while words stream{when}, 95th percentile of {len(latencies)} keys"
    yield Figure(name, "ms", 1000 * latencies[int(0.95 * len(latencies))], tuple(1000 * value for value in latencies))


def _type_until(terminal: "_Terminal", end: bytes) -> list[float]:
    """Type a key every quarter of a second until `end` is shown; seconds from each key to its sight."""
    latencies: list[float] = []
    typed, typed_at, due, tail = b"", 0.0, time.perf_counter() + 0.2, b""
    while True:
        output = terminal.read(0.005)
        now = time.perf_counter()
        if typed and typed in output:
            latencies.append(now - typed_at)
            typed = b""
        tail = (tail + output)[-400_000:]
        if end in tail:
            return latencies
        if not typed and now >= due:
            typed, typed_at, due = KEYS[len(latencies) % len(KEYS)].encode(), now, now + 0.25
            terminal.write(typed)


class _Terminal:
    """A command in a pseudo-terminal."""

    def __init__(self, command: list[str], width: int, height: int) -> None:
        self._command = command
        self._size = struct.pack("HHHH", height, width, 0, 0)
        self._deadline = time.perf_counter() + LIMIT_SECONDS

    @contextmanager
    def opened(self) -> Iterator["_Terminal"]:
        """Started, and killed at the end."""
        self._pid, self._file = pty.fork()
        if self._pid == 0:
            os.environ.update(TERM="xterm-256color", COLORTERM="truecolor")
            os.execv(self._command[0], self._command)
        ioctl(self._file, TIOCSWINSZ, self._size)
        try:
            yield self
        finally:
            with suppress(ProcessLookupError):
                os.kill(self._pid, SIGKILL)
            os.waitpid(self._pid, 0)
            os.close(self._file)

    def read(self, seconds: float = 0.05) -> bytes:
        """What was written since, after waiting so long at most."""
        if time.perf_counter() > self._deadline:
            raise TimeoutError(f"{' '.join(self._command[:3])} did not get there in {LIMIT_SECONDS:.0f} s")
        ready, _, _ = select.select([self._file], [], [], seconds)
        try:
            return os.read(self._file, 1 << 16) if ready else b""
        except OSError:
            return b""

    def write(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self._file, keys)

    def until(self, text: bytes) -> None:
        """Read until `text` is shown."""
        seen = b""
        while text not in seen:
            seen = (seen + self.read())[-200_000:]


def _session(*, training: bool) -> None:
    """The session as it is, but with models that never end a text, and 1,000 words at 200 a second."""
    import tempfile
    from pathlib import Path

    import numpy as np
    from textual.widgets import Input

    from engine.config import preset
    from engine.decoder import Decoder, LSTMState
    from engine.lm import LogProbs
    from engine.vocabulary import EOS_ID
    from lotr_tui.app import LotrApp
    from lotr_tui.screens.play import PlayScreen
    from lotr_tui.session import open_player

    plain_advance = Decoder.advance

    def endless_advance(self: Decoder, state: LSTMState, token: int) -> tuple[LogProbs, LSTMState]:
        log_probs, state = plain_advance(self, state, token)
        log_probs[EOS_ID] = -np.inf
        return log_probs, state

    class Session(LotrApp):
        def on_ready(self) -> None:
            self.screen.query_one("#max_tokens Input", Input).value = "1000"
            if training:
                assert isinstance(self.screen, PlayScreen)
                self.screen.begin_training(preset("tiny").with_values(epochs=500))

    Decoder.advance = endless_advance  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        Session(player=open_player([], None), runs_dir=Path(folder), pace=200).run()


if __name__ == "__main__":
    _session(training=sys.argv[1] == "training")
