"""A disk that is full at random moments of trainings, and of saving sessions, prompts, settings and exports.

    python -m tests.faults.full_disk --fills 50 --saves 50

Each time it is told with the path; whatever is looked at meanwhile is whole; once there is room all is written, and
the training ends with the bits of an undisturbed one. The suite runs a short form of it.
"""

import argparse
import json
import random
import subprocess
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

from safetensors import safe_open

from engine.errors import LotrError
from engine.runs.store import CONFIG, METRICS, MODEL, PREVIOUS, RESUME, SAMPLES, is_finished, load, read_start
from lotr_tui.session.export import KINDS, export
from lotr_tui.session.history import History
from lotr_tui.session.saved_session import SavedSession
from lotr_tui.session.session_file import SessionWriter, load_session
from lotr_tui.session.settings import KeptSettings, Settings
from tests.faults.small_disk import SmallDisk, begin_alone, small_disk
from tests.faults.trainings import Trainings
from tests.lotr_tui.session.test_saved_session import node

SAVES_IN_A_SESSION = 10
TOLD_SECONDS = 30.0
"""Waited at most until a training says that it cannot write: until it wants to, which it does 10 times a second."""


class Looker(threading.Thread):
    """Reads the files of a run all the time, as whoever plays with it or attaches to it does."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.path = path
        self.looks = 0
        self.restarts = 0
        """Each may have ended a line that the one before it did not live to end; no other may be torn."""
        self.problems: list[str] = []
        self._done = threading.Event()

    def run(self) -> None:
        """Look until it is enough."""
        while not self._done.wait(0.02):
            try:
                self._look()
            except Exception as error:  # whatever a damaged file does to a reader
                self.problems.append(f"{type(error).__name__}: {error}")
            self.looks += 1

    def enough(self) -> None:
        """Look no more.

        Raises:
            AssertionError: something was damaged.
        """
        self._done.set()
        self.join()
        assert not self.problems, self.problems[0]

    def _look(self) -> None:
        if not (self.path / CONFIG).exists():
            return
        read_start(self.path)
        if (self.path / MODEL).exists():
            load(self.path)
        for name in (RESUME, PREVIOUS):
            # Just now it may have another name.
            with suppress(FileNotFoundError), safe_open(self.path / name, framework="numpy") as file:
                json.loads(file.metadata()["rest"])
        for name in (METRICS, SAMPLES):
            with suppress(FileNotFoundError):
                lines = (self.path / name).read_bytes().split(b"\n")[:-1]
                torn = [line for line in lines if line and not _is_row(line)]
                assert len(torn) <= self.restarts, f"{name}: {torn}"


def _is_row(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


class FullDisk(Trainings):
    """Trains on a disk that is filled."""

    def __init__(self, folder: Path, home: Path, disk: SmallDisk, seed: int = 0) -> None:
        super().__init__(folder, home)
        self.disk = disk
        self.chance = random.Random(seed)
        self.largest = max(file.stat().st_size for file in self.path("whole").iterdir())

    def fill(self, name: str, most: int) -> tuple[int, int, float]:
        """Fill the disk while a training goes on, at most so often.

        Returns how often that was told, how often whatever of it was looked at, and the seconds until it was told
        the latest.

        Raises:
            AssertionError: it was not told with the path, a file was damaged, something was never written, or the
                training did not end as the undisturbed one.
        """
        path, told, slowest, unsaved = self.path(name), 0, 0.0, False
        looker = Looker(path)
        looker.start()
        for again in count():
            looker.restarts = again
            process = self.start(name, resume=bool(again))
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(self.chance.uniform(0.05, 0.5))
                begun = sum(row.get("event") == "started" for row in self.told(name))
                if told < most and begun > again and process.poll() is None:  # before that nothing is written
                    seconds = self._fill_once(name, process)
                    told, slowest = told + (seconds is not None), max(slowest, seconds or 0.0)
            if process.returncode == 0:
                break
            # The disk was full at its end: that is said, and it is gone on with.
            unsaved = True
            end = self.printed(name).splitlines()[-1]
            assert "the end of the training is not saved" in end, end
            assert str(path) in end, end
            if is_finished(path):  # only what came behind that did not fit; what a resume needed is still there
                for left in path.glob("resume*"):
                    left.unlink()
                break
        looker.enough()
        if not unsaved:
            self.check_nothing_is_lost(name)
        self.compare(name)
        return told, looker.looks, slowest

    def _fill_once(self, name: str, process: "subprocess.Popen[bytes]") -> float | None:
        """Fill the disk, wait until it is told and a while longer, free it; the seconds until then, None if never."""
        before = len(self._warnings(name))
        self.disk.fill(self.chance.randrange(self.largest))
        began = time.monotonic()
        said = None
        while said is None and process.poll() is None and time.monotonic() - began < TOLD_SECONDS:
            time.sleep(0.005)
            for message in self._warnings(name)[before:]:
                said = time.monotonic() - began
                assert str(self.path(name)) in message, message
        time.sleep(self.chance.uniform(0, 0.3))
        self.disk.free()
        assert said is not None or process.poll() is not None, "a full disk was not told"
        return said

    def _warnings(self, name: str) -> list[str]:
        return [row["message"] for row in self.told(name) if row.get("event") == "warned"]


class FullWhileSaving:
    """What a session keeps, on a disk that is filled."""

    def __init__(self, home: Path, disk: SmallDisk, seed: int = 0) -> None:
        self.disk = disk
        self.home = home
        self.chance = random.Random(seed)
        self.writer = SessionWriter("bundled", home / "sessions")
        self.history = History(home / "history.jsonl")
        self.settings = KeptSettings(home / "settings.json")
        self.exports = home / "exports"
        self.exports.mkdir(parents=True)
        self.nodes = 0

    def fill(self) -> bool:
        """Save everything with hardly any room, then with room; whether something could not be written at first.

        Raises:
            AssertionError: a failure does not name its path, a file is damaged, or something was never written.
        """
        self.disk.fill(self.chance.randrange(40_000))
        try:
            said = self._save_everything()
            self._look(whole=False)
        finally:
            self.disk.free()
        for line in said:
            assert str(self.home) in line, line
        again = self._save_everything()
        assert not again, again
        self._look(whole=True)
        for file in self.exports.iterdir():
            file.unlink()
        return bool(said)

    def _save_everything(self) -> list[str]:
        """What went wrong."""
        said = []
        reply = node(self.nodes)
        # About 8 KB: a file of less than a page grows without taking any.
        reply = replace(reply, words=reply.words * (1 + 100 // max(1, len(reply.words))))
        self.nodes += 1
        actions = [
            lambda: self.writer.keep(reply),
            lambda: self.history.add(f"prompt {self.nodes} {'and so on ' * 500}"),
            lambda: export(self._small(), self.chance.choice(list(KINDS)), self.exports),
        ]
        for action in actions:
            try:
                action()
            except LotrError as error:
                said.append(str(error))
        return [*said, *filter(None, [self.settings.keep(pace=float(self.nodes % 100))])]

    def _small(self) -> SavedSession:
        """The session as it is exported: its latest replies."""
        session = self.writer.session
        return replace(session, nodes=session.nodes[-3:], current=None)

    def _look(self, *, whole: bool) -> None:
        """See that every file is whole and, with `whole`, that all is in it."""
        sessions = list((self.home / "sessions").glob("*"))
        assert all(path.suffix == ".jsonl" for path in sessions), sessions
        kept = [len(load_session(path).nodes) for path in sessions]
        assert kept == [self.nodes] if whole else len(kept) <= 1, kept
        entries = History(self.history.path).entries
        lines = self.history.path.read_bytes().splitlines() if self.history.path.exists() else []
        assert [json.loads(line) for line in lines] == entries
        path = self.settings.path
        settings = Settings.from_json(path.read_text(encoding="utf-8")) if path.exists() else None
        if whole:
            assert entries == self.history.entries
            assert settings == self.settings.current
        for file in self.exports.iterdir():
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".json":
                json.loads(text)
            elif file.suffix == ".svg":
                ET.fromstring(text)
            else:
                assert text.startswith("# "), file
                assert text.endswith("\n"), file
        left = [item.name for item in self.home.rglob(".*")]
        assert not left, left


def trials(fills: int, saves: int, folder: Path, disk: SmallDisk, seed: int) -> Iterator[str]:
    """As many of both; says what came of each."""
    full = 0
    for number in range(saves):
        if number % SAVES_IN_A_SESSION == 0:
            saving = FullWhileSaving(disk.path / f"home-{number}", disk, seed + number)
        full += saving.fill()
    yield f"saved {saves} times with hardly any room, {full} of them without enough: told, nothing damaged, all written"
    if not fills:
        return
    trainings = FullDisk(folder, disk.path, disk, seed)
    told, looks, slowest = 0, 0, 0.0
    for run in count():
        if told >= fills:
            break
        its, looked, seconds = trainings.fill(f"full-{run}", fills - told)
        told, looks, slowest = told + its, looks + looked, max(slowest, seconds)
        yield (
            f"full {its} times, then the same bits ({told} of {fills}); told within {slowest:.2f} s; "
            f"nothing damaged in {looks:,} looks"
        )


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fills", type=int, default=50)
    parser.add_argument("--saves", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    begin_alone("tests.faults.full_disk")
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk") as disk:
        for line in trials(options.fills, options.saves, Path(folder), disk, options.seed):
            print(line, flush=True)
    print(json.dumps({"fills": options.fills, "saves": options.saves, "all": "same bits, nothing damaged"}))


if __name__ == "__main__":
    main()
