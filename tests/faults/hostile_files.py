"""Files from strangers before every reader, and run directories of theirs before the commands.

    python -m tests.faults.hostile_files --inputs 10000 --directories 1000

Each is read in a process of its own, which may take 5 s and 500 MB, may end with 0, 1 or 2 and one line, and may send
no control byte to the terminal; commands may change nothing outside the run, nor in it but for what they are to write.
The suite runs a short form of it.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path

import pandas  # noqa: F401 - so that no child has to import what commands do
import rich.table  # noqa: F401
import safetensors.numpy  # noqa: F401
import torch  # noqa: F401

import engine.training.run  # noqa: F401
import lotr_tui.cli.console  # noqa: F401
from engine.analysis.token_scores import read_file
from engine.data import preparation
from engine.data.dataset import prepare, summarize
from engine.errors import LotrError
from engine.runs.control_files import Requests
from engine.runs.store import is_written, kept_epochs, list_runs, load, read_start, writer
from engine.runs.store import summarize as summarize_run
from engine.training.checkpoint import Saved
from engine.training.run import train
from lotr_tui.__main__ import main as lotr_tui_main
from lotr_tui.cli.main import cli  # noqa: F401
from lotr_tui.cli.reports import print_summary
from lotr_tui.monitor.run_list import all_runs, differences, read_curve
from lotr_tui.monitor.training_view import TrainingView
from lotr_tui.session.history import History
from lotr_tui.session.session_file import load_session, saved_sessions
from lotr_tui.session.settings import KeptSettings
from tests.faults.forked import SECONDS, Forks, Outcome
from tests.faults.hostile_content import ANY, CORPORA, RECORDS, TENSORS, VOCABULARIES, Hostile, mutated, of_bytes
from tests.faults.hostile_home import RUN, config_for, make_home, use

Read = Callable[[Path], object]
STARTING_SECONDS = 60
MOST_MUTATED = 10_000_000
"""Bytes of a file that something is done to; others are replaced."""
TRAINING_SECONDS = 20
"""For a command that may train to the end."""


def _corpus(kind: str) -> Read:
    def read(home: Path) -> None:
        config = config_for(home).data
        name = "corpus.csv" if kind == "csv" else "corpus.txt"
        print_summary(replace(config, corpus=str(home / name), corpus_format=kind), as_json=False)

    return read


def _cache(home: Path) -> None:
    """What was made of the corpus; where it is damaged it is made again."""
    preparation.LARGE_BYTES = 0
    dataset = prepare(config_for(Path(os.environ["LOTR_TUI_GOOD"])).data)
    summarize(dataset)
    for lines in (dataset.split.train, dataset.split.valid, dataset.split.test):
        assert all(line.text for line in lines)
    assert len([int(line.sum()) for line in dataset.train_lines]) > 90
    assert int(dataset.train.max()) < len(dataset.vocabulary)


def _run(home: Path) -> Path:
    return home / "runs" / RUN


def _list(home: Path) -> None:
    runs = [*list_runs(), *all_runs(None)]
    differences(runs)
    for run in runs:
        read_curve(run)
    kept_epochs(_run(home))
    summarize_run(_run(home))


def _resume(home: Path) -> None:
    path = _run(home)
    config, _ = read_start(path)
    checks = count()
    dataset = prepare(config.data)
    saved = Saved(path / "resume.safetensors")
    for event in train(config, dataset, RUN, lambda: next(checks) > 3, saved=saved):
        del event


def _record(home: Path) -> None:
    for outline in (True, False):
        TrainingView.of_run(_run(home), outline=outline)
    summarize_run(_run(home))


def _requests(home: Path) -> None:
    for command in Requests(_run(home))():
        print(command.what, command.value)


def _lock(home: Path) -> None:
    print(writer(_run(home)), is_written(_run(home)))


def _sessions(home: Path) -> None:
    for summary in saved_sessions():
        load_session(summary.path)


@dataclass(frozen=True)
class Reader:
    """Something that reads a file of the home."""

    file: str
    """Inside the home, by a pattern."""
    read: Read
    by_hand: Sequence[Hostile] = ()
    """Beside those for any file."""


READERS = {
    "corpus, CSV": Reader("corpus.csv", _corpus("csv"), CORPORA),
    "corpus, text": Reader("corpus.txt", _corpus("text"), CORPORA),
    "text for the lens": Reader("corpus.txt", lambda home: read_file(home / "corpus.txt"), CORPORA),
    "configuration": Reader(f"runs/{RUN}/config.json", lambda home: (load(_run(home)), _list(home))),
    "configuration in the list": Reader(f"runs/{RUN}/config.json", _list),
    "vocabulary": Reader(f"runs/{RUN}/vocabulary.json", lambda home: load(_run(home)), VOCABULARIES),
    "model": Reader(f"runs/{RUN}/model.safetensors", lambda home: load(_run(home)), TENSORS),
    "model of an epoch": Reader(f"runs/{RUN}/epochs/1.safetensors", lambda home: load(_run(home), 1), TENSORS),
    "resume": Reader(f"runs/{RUN}/resume.safetensors", _resume, TENSORS),
    "record": Reader(f"runs/{RUN}/metrics.jsonl", _record, RECORDS),
    "record of samples": Reader(f"runs/{RUN}/samples.jsonl", _record, RECORDS),
    "requests": Reader(f"runs/{RUN}/requests.jsonl", _requests),
    "lock": Reader(f"runs/{RUN}/lock", _lock),
    "settings": Reader("settings.json", lambda home: print(KeptSettings().notice)),
    "history": Reader("history.jsonl", lambda home: (History(), History().add("more"))),
    "history's lock": Reader("history.lock", lambda home: History().add("more")),
    "session": Reader("sessions/*.jsonl", _sessions),
    "cache": Reader("cache/*/*", _cache),
}  # fmt: skip


@dataclass
class Findings:
    """What came of many."""

    done: int = 0
    refused: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    slowest_is: str = ""
    megabytes: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, what: str, outcome: Outcome, seconds: float) -> str:
        """Take in one; the problem is returned, "" if there is none."""
        self.done += 1
        self.refused += outcome.code != 0
        self.seconds += seconds
        if seconds > self.slowest:
            self.slowest, self.slowest_is = seconds, what
        self.megabytes = max(self.megabytes, outcome.megabytes)
        problem = outcome.problem
        if problem:
            self.problems.append(f"{what}: {problem}")
        return problem

    def __str__(self) -> str:
        return json.dumps(
            {
                "done": self.done,
                "refused": self.refused,
                "seconds": round(self.seconds, 1),
                "slowest": f"{self.slowest:.2f} s by the clock: {self.slowest_is}",
                "most MB": round(self.megabytes),
                "problems": len(self.problems),
            }
        )


class Strangers:
    """A good home, and what is done with hostile copies of it."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.chance = random.Random(seed)
        self.good = folder / "good"
        self.copy = folder / "copy"
        self.good.mkdir()
        os.environ["LOTR_TUI_GOOD"] = str(self.good)
        use(self.good)
        self.forks = Forks(folder)
        made = self.forks.run(lambda: make_home(self.good), STARTING_SECONDS)
        assert made.code == 0, made
        self.files = {path: path.read_bytes() for path in sorted(self.good.rglob("*")) if path.is_file()}

    def inputs(self, number: int, only: Sequence[str] = ()) -> Iterator[tuple[str, Outcome, float]]:
        """So many hostile files before the readers, those made by hand first."""
        readers = {name: reader for name, reader in READERS.items() if not only or name in only}
        made = [(name, hostile) for name, reader in readers.items() for hostile in (*ANY, *reader.by_hand)]
        if number < len(made):
            made = self.chance.sample(made, number)
        for name, hostile in made:
            yield self._read(name, hostile)
        for place in range(number - len(made)):
            name = [*readers][place % len(readers)]
            good = self.files[self.chance.choice(self._files_of(name))]
            # So that what broke can be made again from its number alone.
            chance = random.Random(place)
            content = mutated(good, list(self.files.values()), chance)
            yield self._read(name, of_bytes(f"number {place}", content))

    def _files_of(self, name: str) -> list[Path]:
        return [path for path in self.files if path.match(str(self.good / READERS[name].file))] or [*self.files][:1]

    def _read(self, name: str, hostile: Hostile) -> tuple[str, Outcome, float]:
        reader = READERS[name]
        self._copy_home()
        file = self.chance.choice([*self.copy.glob(reader.file)] or [self.copy / reader.file])
        file.unlink(missing_ok=True)
        hostile.put(file)

        def read() -> int:
            use(self.copy)
            try:
                reader.read(self.copy)
            except LotrError as error:
                print(f"lotr-tui: {error}", file=sys.stderr)
                return error.exit_code
            return 0

        started = time.monotonic()
        outcome = self.forks.run(read)
        return f"{name} ({file.name}), {hostile.name}", outcome, time.monotonic() - started

    def _copy_home(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.good, self.copy)

    # Run directories

    def directories(self, number: int) -> Iterator[tuple[str, Outcome, float]]:
        """So many damaged or malicious run directories, each before some commands."""
        for place in range(number):
            yield from self._commands(place, random.Random(place))

    def _commands(self, place: int, chance: random.Random) -> Iterator[tuple[str, Outcome, float]]:
        self._copy_home()
        damage = self._damage(chance)
        run = _run(self.copy)
        for command in (*ALWAYS, *chance.sample(NOW_AND_THEN, COMMANDS_DRAWN)):
            export = self.folder / "export"
            shutil.rmtree(export, ignore_errors=True)
            arguments = ["lotr-tui", *(str(export) if word == "EXPORT" else word for word in command)]
            resumes = "--resume" in command
            before = everything(self.folder, but=(run if resumes else None, export))
            started = time.monotonic()
            outcome = self.forks.run(partial(self._command, arguments), TRAINING_SECONDS if resumes else SECONDS)
            seconds = time.monotonic() - started
            after = everything(self.folder, but=(run if resumes else None, export))
            what = f"directory {place} ({damage}): {' '.join(command)}"
            changed = sorted({str(path) for path, _ in before.items() ^ after.items()})
            if changed:
                outcome = Outcome(outcome.code, outcome.stdout, f"Traceback: changed {changed}", outcome.megabytes)
            yield what, outcome, seconds

    def _command(self, arguments: list[str]) -> int:
        use(self.copy)
        sys.argv = arguments
        try:
            lotr_tui_main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)

    def _damage(self, chance: random.Random) -> str:
        """One to three things done to the run of the copy; says what."""
        run, said = _run(self.copy), []
        if chance.random() < 0.1:
            link, target = chance.choice((("epochs", "outside"), ("log.txt", "outside/kept"), ("lock", "outside/kept")))
            (self.copy / "outside").mkdir()
            (self.copy / "outside" / "kept").write_text("a file of others\n")
            (self.copy / "outside" / ".1.safetensors.left").write_text("another\n")
            path = run / link
            shutil.rmtree(path) if path.is_dir() else path.unlink()
            path.symlink_to(self.copy / target)
            said.append(f"{link} leads outside")
        for _ in range(chance.choice((1, 1, 2, 3))):
            files = [path for path in sorted(run.rglob("*")) if path.is_file() and not path.is_symlink()]
            if not files:
                break
            file = chance.choice(files)
            names = {reader.file.rpartition("/")[2]: reader for reader in READERS.values()}
            by_hand = (*ANY, *(names[file.name].by_hand if file.name in names else ()))
            if chance.random() < 0.15 or file.stat().st_size > MOST_MUTATED:
                hostile = chance.choice(by_hand)
            else:
                content = mutated(file.read_bytes(), list(self.files.values()), chance)
                hostile = of_bytes("mutated", content)
            file.unlink()
            hostile.put(file)
            said.append(f"{file.name}: {hostile.name}")
        return ", ".join(said)


ALWAYS = (
    ["generate", "the miller", "--run", RUN, "--seed", "1"],
    ["train", "--no-tui", "--resume", RUN],
)
NOW_AND_THEN = (
    ["generate", "the miller", "--run", f"{RUN}@1", "--seed", "1", "--json"],
    ["eval", RUN, "--json"],
    ["status", RUN],
    ["status", RUN, "--json"],
    ["runs"],
    ["runs", "--json"],
    ["runs", "show", RUN],
    ["runs", "export", RUN, "--csv", "EXPORT"],
    ["attach", RUN],
)
COMMANDS_DRAWN = 3


def everything(folder: Path, but: Sequence[Path | None] = ()) -> dict[Path, object]:
    """All that lies in a folder: kinds, sizes, times of change and, of small files, what is in them."""
    found: dict[Path, object] = {}
    for path in folder.rglob("*"):
        if path.parent == folder or any(one and (path == one or one in path.parents) for one in but):
            continue
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() and status.st_size < 1e6 else None
        found[path] = (status.st_mode, status.st_size, status.st_mtime_ns if content is not None else 0, content)
    return found


def main() -> None:
    """The long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000)
    parser.add_argument("--directories", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", default=[], help=f"only this one: {', '.join(READERS)}")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        strangers = Strangers(Path(folder), options.seed)
        for name, outcomes in (
            ("inputs", strangers.inputs(options.inputs, options.reader)),
            ("commands on directories", strangers.directories(options.directories)),
        ):
            findings, codes = Findings(), Counter[int]()
            for what, outcome, seconds in outcomes:
                codes[outcome.code] += 1
                if problem := findings.add(what, outcome, seconds):
                    print(f"{what}: {problem}", flush=True)
                elif findings.done % 1000 == 0:
                    print(findings, flush=True)
            print(name, findings, dict(codes), flush=True)
            failed = failed or bool(findings.problems)
    sys.exit(failed)


if __name__ == "__main__":
    main()
