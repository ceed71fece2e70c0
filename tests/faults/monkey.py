"""Whatever is pressed, clicked, pasted and resized on the real program, a training going on: no exception, no lost key.

    python -m tests.faults.monkey --events 100000

A third each goes to a session with a training of its own, to the dashboard of `train`, and to that of `attach`. Keys go
to all screens that they lead to. Where they leave the program, which is right, it is started again.
`tests/lotr_tui/test_monkey.py` is the short form.
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
from lotr_tui.bench.subjects import READY, SESSION_COMMAND, TYPEABLE
from lotr_tui.bench.terminal import BenchError, Terminal, shown
from lotr_tui.bench.training.dashboard import shown_from
from lotr_tui.session.settings import Settings
from tests.faults.players import SIZES
from tests.faults.trainers import Trainer, ask_all_to_stop

EPOCHS = 100_000
TRAIN = ["train", "--preset", "tiny", "--set", f"epochs={EPOCHS}", "--set", "threads=1"]
SHOWN = "f1"
"""In the line of keys, which is painted last."""
LEAVE_SECONDS = 30.0
CATCH_UP = 25
"""Events after which the program may catch up: no person is further ahead of it."""
QUIET_SECONDS, MOST_SECONDS = 0.03, 2.0
KEYS = [
    *(letter.encode() for letter in string.ascii_lowercase + "0123456789 .,?!+-/[]^"),
    *(bytes([number]) for number in range(1, 27) if number not in (17, 26)),  # leaving and suspending it are no fault
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
TORN = [b"\x1b[", b"\x1b[<0;", b"\xff\xfe\x80", b"\x1b[200~", b"\x1b[201~", b"\x1b]11;", b"\x00"]
"""Beginnings of what a terminal says, and bytes that are no text."""


class Monkey:
    """Presses keys in one kind of program for as many events as are wanted."""

    def __init__(self, open_program: Callable[[], Terminal], chance: random.Random) -> None:
        self.done = 0
        self.starts = self.suspended = 0
        self._open_program = open_program
        self._chance = chance
        self._output = b""
        self._did: list[bytes] = []

    def play(self, events: int) -> None:
        """So many.

        Raises:
            AssertionError: it told of an exception, or ended otherwise than because it was left.
        """
        while self.done < events:
            self.starts += 1
            self._output, self._did = b"", []
            with self._open_program().opened() as terminal:
                self._read(terminal, 2.0, 15.0)
                while self.done < events and not terminal.ended():
                    for _ in range(CATCH_UP):
                        self._event(terminal)
                    self._read(terminal, QUIET_SECONDS, MOST_SECONDS)
                    self._wake(terminal)
                if not terminal.ended():
                    os.kill(terminal.pid, signal.SIGTERM)
                asked = time.monotonic()
                while not terminal.ended():
                    if time.monotonic() > asked + LEAVE_SECONDS:
                        self._hangs(terminal)
                    self._read(terminal, 0.05, 0.2)
                said = shown(self._output)[-4000:]
                # A ctrl+c behind the key that left it comes to it as a signal, at its very end.
                assert terminal.status in (0, 130, -signal.SIGINT), f"{terminal.status} after {self._did[-40:]}: {said}"

    def _event(self, terminal: Terminal) -> None:
        chance, kind = self._chance, self._chance.random()
        if kind < 0.97:
            if kind < 0.88:
                keys = chance.choice(KEYS)
            elif kind < 0.94:
                x, y, button = chance.randrange(1, 200), chance.randrange(1, 50), chance.choice([0, 0, 0, 2, 64, 65])
                keys = f"\x1b[<{button};{x};{y}M\x1b[<{button};{x};{y}m".encode()
            elif kind < 0.96:
                keys = f"\x1b[200~{chance.choice(PASTES)}\x1b[201~".encode()
            else:
                keys = chance.choice(TORN)
            self._did.append(keys)
            self._write(terminal, keys)
        else:
            terminal.resize(*chance.choice(SIZES))
        self.done += 1

    def _write(self, terminal: Terminal, keys: bytes) -> None:
        try:
            terminal.write(keys)
        except BenchError:
            asked = time.monotonic()
            while not (terminal.ended() or self._wake(terminal)):  # its terminal is closed some time before
                if time.monotonic() > asked + LEAVE_SECONDS:
                    self._hangs(terminal)
                time.sleep(0.02)
        self._read(terminal, 0, 0.001)

    def _wake(self, terminal: Terminal) -> bool:
        """Go on with a program that was suspended by its palette, as the shell's `fg` does; whether it was."""
        if terminal.ended():
            return False
        status = Path(f"/proc/{terminal.pid}/status").read_text()
        if suspended := "State:\tT" in status:
            os.kill(terminal.pid, signal.SIGCONT)
            self.suspended += 1
        return suspended

    def _hangs(self, terminal: Terminal) -> NoReturn:
        os.kill(terminal.pid, signal.SIGABRT)  # so that it says where it stands
        self._read(terminal, 1.0, 5.0)
        raise AssertionError(f"it hangs after {self._did[-20:]}: {shown(self._output)[-9000:]}")

    def _read(self, terminal: Terminal, quiet: float, most: float) -> None:
        end = time.monotonic() + most
        try:
            while time.monotonic() < end and (output := terminal.read(quiet)):
                self._output = (self._output + output)[-300_000:]
        except BenchError:
            time.sleep(0.02)  # it has ended, or is about to
        assert b"Traceback" not in self._output, f"after {self._did[-40:]}: {shown(self._output)[-9000:]}"


def type_in_bursts(home: Path, prompts: int, chance: random.Random) -> int:
    """Type prompts in bursts while a training goes on, and see that each was taken whole; returns the keys typed.

    Raises:
        AssertionError: one came otherwise than it was typed.
    """
    sampler = SamplerSettings(max_tokens=1)  # words that still come would hold up the next prompt
    home.mkdir(parents=True)
    (home / "settings.json").write_text(Settings(sampler=sampler, pace=0).to_json())
    typed = []
    with Terminal([*SESSION_COMMAND, *TRAIN], 100, 30, home).opened() as terminal:
        terminal.until(shown_from(EPOCHS))
        terminal.settle(3, 3)
        terminal.press(b"p", TYPEABLE)
        for _ in range(prompts):
            bursts = [
                "".join(chance.choices(string.ascii_lowercase + " ", k=chance.randrange(1, 30))) for _ in range(8)
            ]
            for burst in ["the lamp ", *bursts, "."]:
                terminal.write(burst.encode())
                terminal.settle(0, chance.choice([0, 0, 0.01, 0.1]))
            typed.append("".join(["the lamp ", *bursts, "."]))
            terminal.settle(0.3, 3)
            terminal.write(b"\r")
            terminal.settle(0.3, 3)
    kept = [json.loads(line) for line in (home / "history.jsonl").read_text().splitlines()]
    for number, (was, came) in enumerate(zip(typed, kept, strict=False)):
        # Where words were still coming, enter sends nothing, and what is typed next comes behind.
        expected = (was, kept[number - 1] + was if number else was)
        assert came in expected, f"prompt {number}: {was!r} came as {came!r}"
    assert len(kept) == len(typed), f"{len(typed)} prompts were typed, {len(kept)} came"
    return sum(map(len, typed))


def monkey(home: Path, events: int, seed: int) -> Iterator[str]:
    """So many events, a third to each kind of program; then typing in bursts.

    Raises:
        AssertionError: something broke.
    """
    each = -(-events // 3)
    for number, (what, program) in enumerate((("session", _session), ("train", _train), ("attach", _attach))):
        with program(home / what, random.Random(seed)) as open_program:
            one = Monkey(open_program, random.Random(f"{seed} {number}"))
            one.play(each)
        yield f"{what}: {one.done:,} events, started {one.starts} times, suspended {one.suspended}, no exception"
    keys = type_in_bursts(home / "bursts", max(3, events // 1000), random.Random(seed))
    yield f"{keys:,} keys typed in bursts, none lost"


@contextmanager
def _session(home: Path, chance: random.Random) -> Iterator[Callable[[], Terminal]]:
    """A session that finds a training begun as soon as a key begins it."""
    home.mkdir()
    yield lambda: _Begun(SESSION_COMMAND, 120, 30, home)


class _Shown(Terminal):
    """A dashboard once it is there; before that the terminal is not its own."""

    @contextmanager
    def opened(self) -> Iterator[Terminal]:
        with super().opened():
            self.until(SHOWN)
            yield self


class _Begun(Terminal):
    """A session in which a training is begun, so that it goes on behind whatever is done."""

    @contextmanager
    def opened(self) -> Iterator[Terminal]:
        with super().opened():
            self.until(READY)
            for keys in (b"\x14", b"\r"):
                self.write(keys)
                self.settle(0.3, 2)
            yield self


@contextmanager
def _train(home: Path, chance: random.Random) -> Iterator[Callable[[], Terminal]]:
    home.mkdir()
    yield lambda: _Shown([*SESSION_COMMAND, *TRAIN], 120, 30, home)
    ask_all_to_stop(home)  # those that were detached


@contextmanager
def _attach(home: Path, chance: random.Random) -> Iterator[Callable[[], Terminal]]:
    """The dashboard of another process's training, which is begun anew where it was stopped."""
    home.mkdir()
    trainer = Trainer("attached", home, chance)

    def opened() -> Terminal:
        trainer.keep_going()
        return _Shown([*SESSION_COMMAND, "attach", "attached"], 120, 30, home)

    yield opened
    trainer.end(LEAVE_SECONDS)


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ |= {"LOTR_TUI_DEBUG": "1", "PYTHONFAULTHANDLER": "1"}
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        started = time.monotonic()
        for line in monkey(Path(folder), options.events, options.seed):
            print(f"{time.monotonic() - started:5.0f} s  {line}", flush=True)


if __name__ == "__main__":
    main()
