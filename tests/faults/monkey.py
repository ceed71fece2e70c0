"""Random keys, clicks, pastes and sizes on the real program during a training: no exception, and no lost key.

    python -m tests.faults.monkey --events 100000

A third of the events goes to a session in which a model is trained, a third to the dashboard of `train`, and a third to
the dashboard of `attach`. A program that a key ends is started again. `tests/lotr_tui/test_monkey.py` has the short
form, in the process of the tests.
"""

import argparse
import json
import os
import random
import signal
import string
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

from engine.generation.settings import SamplerSettings
from lotr_tui.session.settings import Settings
from tests.faults.disturbed_training import DisturbedTraining, stop_all_trainings
from tests.faults.session_user import SIZES
from tests.support.terminal import (
    INPUT_READY_TEXT,
    MODEL_READY_TEXT,
    SESSION_COMMAND,
    Terminal,
    TerminalError,
    epoch_marker,
    strip_control_sequences,
)

EPOCHS = 100_000
TRAIN = ["train", "--preset", "tiny", "--set", f"epochs={EPOCHS}", "--set", "threads=1"]
DASHBOARD_READY_TEXT = "f1"
"""Text of the footer, which a dashboard paints last."""
EXIT_TIMEOUT = 30.0
EVENTS_PER_BURST = 25
"""Events after which the program gets time to catch up. No person is further ahead of it."""
QUIET_SECONDS, MAX_READ_SECONDS = 0.03, 2.0
KEYS = [
    *(letter.encode() for letter in string.ascii_lowercase + "0123456789 .,?!+-/[]^"),
    *(bytes([number]) for number in range(1, 27) if number not in (17, 26)),  # without ctrl+q and ctrl+z
    *(f"\x1bO{letter}".encode() for letter in "PQRS"),
    *(f"\x1b[{number}~".encode() for number in (1, 2, 3, 4, 5, 6, 15, 17, 18, 19, 20, 21, 23, 24)),
    *(f"\x1b[{letter}".encode() for letter in "ABCDHFZ"),
    *[b"\r", b"\r", b"\r", b"\x1b", b"\x7f"],
]
PASTES = [
    "Bilbo Baggins is\na friend",
    "[red]not markup[/red] \x07 the lamp",
    "日本語 e\u0301 \u200b",
    "the lamp " * 500,
    "",
]
INVALID_INPUT = [b"\x1b[", b"\x1b[<0;", b"\xff\xfe\x80", b"\x1b[200~", b"\x1b[201~", b"\x1b]11;", b"\x00"]
"""Incomplete escape sequences, and bytes that are not UTF-8."""


class Monkey:
    """Source of random events for one kind of program."""

    def __init__(self, make_terminal: Callable[[], Terminal], rng: random.Random) -> None:
        self.num_events = 0
        self.num_starts = self.num_suspends = 0
        self._make_terminal = make_terminal
        self._rng = rng
        self._output = b""
        self._keys: list[bytes] = []

    def play(self, events: int) -> None:
        """Send `events` events, and start the program again whenever it ends.

        Raises:
            AssertionError: If the program shows a traceback, fails or hangs.
        """
        while self.num_events < events:
            self.num_starts += 1
            self._output, self._keys = b"", []
            with self._make_terminal().spawn() as terminal:
                self._read(terminal, 2.0, 15.0)
                while self.num_events < events and not terminal.has_exited():
                    for _ in range(EVENTS_PER_BURST):
                        self._send_event(terminal)
                    self._read(terminal, QUIET_SECONDS, MAX_READ_SECONDS)
                    self._continue_if_suspended(terminal)
                if not terminal.has_exited():
                    os.kill(terminal.pid, signal.SIGTERM)
                self._wait(terminal, terminal.has_exited, lambda: self._read(terminal, 0.05, 0.2))
                output = strip_control_sequences(self._output)[-4000:]
                # A signal that comes while Python shuts down, after everything was saved, has its default effect.
                assert terminal.exit_status in (0, 130, 143, -signal.SIGINT, -signal.SIGTERM), (
                    f"{terminal.exit_status} after {self._keys[-40:]}: {output}"
                )

    def _send_event(self, terminal: Terminal) -> None:
        rng, kind = self._rng, self._rng.random()
        if kind < 0.97:
            if kind < 0.88:
                keys = rng.choice(KEYS)
            elif kind < 0.94:
                x, y, button = rng.randrange(1, 200), rng.randrange(1, 50), rng.choice([0, 0, 0, 2, 64, 65])
                keys = f"\x1b[<{button};{x};{y}M\x1b[<{button};{x};{y}m".encode()
            elif kind < 0.96:
                keys = f"\x1b[200~{rng.choice(PASTES)}\x1b[201~".encode()
            else:
                keys = rng.choice(INVALID_INPUT)
            self._keys.append(keys)
            self._write(terminal, keys)
        else:
            terminal.resize(*rng.choice(SIZES))
        self.num_events += 1

    def _write(self, terminal: Terminal, keys: bytes) -> None:
        try:
            terminal.write(keys)
        except TerminalError:  # the program is suspended, or has closed its terminal and is about to end
            self._wait(
                terminal,
                lambda: terminal.has_exited() or self._continue_if_suspended(terminal),
                lambda: time.sleep(0.02),
            )
        self._read(terminal, 0, 0.001)

    def _continue_if_suspended(self, terminal: Terminal) -> bool:
        """Continue a program that a command of its palette has suspended. Return True if it was suspended."""
        if terminal.has_exited():
            return False
        status = Path(f"/proc/{terminal.pid}/status").read_text()
        if is_suspended := "State:\tT" in status:
            os.kill(terminal.pid, signal.SIGCONT)
            self.num_suspends += 1
        return is_suspended

    def _wait(self, terminal: Terminal, condition: Callable[[], bool], pause: Callable[[], None]) -> None:
        """Call `pause` until `condition` holds.

        Raises:
            AssertionError: If this takes longer than `EXIT_TIMEOUT`.
        """
        deadline = time.monotonic() + EXIT_TIMEOUT
        while not condition():
            if time.monotonic() > deadline:
                self._fail_hanging(terminal)
            pause()

    def _fail_hanging(self, terminal: Terminal) -> NoReturn:
        os.kill(terminal.pid, signal.SIGABRT)  # with PYTHONFAULTHANDLER, Python prints where it hangs
        self._read(terminal, 1.0, 5.0)
        output = strip_control_sequences(self._output)[-9000:]
        raise AssertionError(f"the program hangs after {self._keys[-20:]}: {output}")

    def _read(self, terminal: Terminal, quiet_seconds: float, max_seconds: float) -> None:
        end = time.monotonic() + max_seconds
        try:
            while time.monotonic() < end and (output := terminal.read(quiet_seconds)):
                self._output = (self._output + output)[-300_000:]
        except TerminalError:
            time.sleep(0.02)  # the program has ended, or is about to
        assert b"Traceback" not in self._output, (
            f"after {self._keys[-40:]}: {strip_control_sequences(self._output)[-9000:]}"
        )


class DashboardTerminal(Terminal):
    """Terminal whose program is ready once its dashboard is painted; before, the program does not read keys."""

    @contextmanager
    def spawn(self) -> Iterator[Terminal]:
        """Start the program and wait for the dashboard."""
        with super().spawn():
            self.read_until(DASHBOARD_READY_TEXT)
            yield self


class TrainingSessionTerminal(Terminal):
    """Terminal of a session in which a training is started first."""

    @contextmanager
    def spawn(self) -> Iterator[Terminal]:
        """Start the session and its training."""
        with super().spawn():
            self.read_until(MODEL_READY_TEXT)
            for keys in (b"\x14", b"\r"):
                self.write(keys)
                self.read_until_quiet(0.3, 2)
            yield self


@contextmanager
def _session(home: Path, rng: random.Random) -> Iterator[Callable[[], Terminal]]:
    home.mkdir()
    yield lambda: TrainingSessionTerminal(SESSION_COMMAND, 120, 30, home)


@contextmanager
def _train(home: Path, rng: random.Random) -> Iterator[Callable[[], Terminal]]:
    home.mkdir()
    yield lambda: DashboardTerminal([*SESSION_COMMAND, *TRAIN], 120, 30, home)
    stop_all_trainings(home)  # trainings that a key has detached


@contextmanager
def _attach(home: Path, rng: random.Random) -> Iterator[Callable[[], Terminal]]:
    """Train in another process, which is started again whenever a key has stopped it."""
    home.mkdir()
    training = DisturbedTraining("attached", home, rng)

    def make_terminal() -> Terminal:
        training.ensure_running()
        return DashboardTerminal([*SESSION_COMMAND, "attach", "attached"], 120, 30, home)

    yield make_terminal
    training.stop(EXIT_TIMEOUT)


PROGRAMS = {"session": _session, "train": _train, "attach": _attach}


def type_in_bursts(home: Path, prompts: int, rng: random.Random) -> int:
    """Type prompts in bursts during a training, and return the number of keys.

    Raises:
        AssertionError: If the history contains another text than was typed.
    """
    sampler = SamplerSettings(max_tokens=1)  # a reply that is still being generated would delay the next prompt
    home.mkdir(parents=True)
    (home / "settings.json").write_text(Settings(sampler=sampler, pace=0).to_json())
    typed = []
    with Terminal([*SESSION_COMMAND, *TRAIN], 100, 30, home).spawn() as terminal:
        terminal.read_until(epoch_marker(EPOCHS))
        terminal.read_until_quiet(3, 3)
        terminal.press(b"p", INPUT_READY_TEXT)
        for _ in range(prompts):
            bursts = [
                "the lamp ",
                *("".join(rng.choices(string.ascii_lowercase + " ", k=rng.randrange(1, 30))) for _ in range(8)),
                ".",
            ]
            for burst in bursts:
                terminal.write(burst.encode())
                terminal.read_until_quiet(0, rng.choice([0, 0, 0.01, 0.1]))
            typed.append("".join(bursts))
            terminal.read_until_quiet(0.3, 3)
            terminal.write(b"\r")
            terminal.read_until_quiet(0.3, 3)
    saved = [json.loads(line) for line in (home / "history.jsonl").read_text().splitlines()]
    for number, (expected, actual) in enumerate(zip(typed, saved, strict=False)):
        # During a reply, enter does nothing, and the next prompt is typed after the unsent one.
        allowed = (expected, saved[number - 1] + expected if number else expected)
        assert actual in allowed, f"prompt {number}: {expected!r} was saved as {actual!r}"
    assert len(saved) == len(typed), f"{len(typed)} prompts were typed, {len(saved)} were saved"
    return sum(map(len, typed))


def run_monkey(home: Path, events: int, seed: int) -> Iterator[str]:
    """Send a third of the events to each kind of program, then type in bursts, and yield lines about the results.

    Raises:
        AssertionError: If a program fails or hangs, or a key is lost.
    """
    events_per_program = -(-events // len(PROGRAMS))
    for number, (name, program) in enumerate(PROGRAMS.items()):
        with program(home / name, random.Random(seed)) as make_terminal:
            monkey = Monkey(make_terminal, random.Random(f"{seed} {number}"))
            monkey.play(events_per_program)
        yield (
            f"{name}: {monkey.num_events:,} events, started {monkey.num_starts} times, "
            f"suspended {monkey.num_suspends} times, no exception"
        )
    num_keys = type_in_bursts(home / "bursts", max(3, events // 1000), random.Random(seed))
    yield f"{num_keys:,} keys typed in bursts, none lost"


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ |= {"LOTR_TUI_DEBUG": "1", "PYTHONFAULTHANDLER": "1"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        start_time = time.monotonic()
        for line in run_monkey(Path(folder), options.events, options.seed):
            print(f"{time.monotonic() - start_time:5.0f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
