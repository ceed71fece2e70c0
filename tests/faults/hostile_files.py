"""Hostile files for every reader of the program, and hostile run directories for its commands.

    python -m tests.faults.hostile_files --inputs 10000 --directories 1000

Each file is read in a separate process, which may take 5 s and 500 MB. The process must end with 0, 1 or 2 and at
most one line of error, send no control character to the terminal, and never overwrite a file that it cannot read.
Commands must change nothing outside the run directory. The test suite runs a short form.
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

# Imported here so that no fork has to import them.
import optuna  # noqa: F401
import rich.table  # noqa: F401
import safetensors.numpy  # noqa: F401
import torch  # noqa: F401

import lotr_tui.cli.generate_console
import lotr_tui.cli.main  # noqa: F401
from engine.errors import LotrError
from lotr_tui.__main__ import main as lotr_tui_main
from tests.faults.fork_runner import CPU_SECONDS, ForkResult, ForkRunner
from tests.faults.hostile_content import FOR_ANY_READER, HostileFile, file_with
from tests.faults.hostile_home import RUN, make_home, use_home
from tests.faults.hostile_readers import READERS, VALID_HOME_VARIABLE, run_dir
from tests.faults.mutations import Mutator

START_SECONDS = 60
"""Maximum processor time to make the valid home."""
TRAINING_SECONDS = 20
"""Maximum processor time of a command that may train to the end."""
MAX_MUTATED_BYTES = 10_000_000
"""Maximum size of a mutated file. Larger files are replaced by a hostile file."""
EXPORT = "EXPORT"
"""Placeholder in a command for the path of the export folder."""
ALWAYS = (
    ["generate", "the miller", "--run", RUN, "--seed", "1"],
    ["train", "--no-tui", "--resume", RUN],
)
SOMETIMES = (
    ["generate", "the miller", "--run", f"{RUN}@1", "--seed", "1", "--json"],
    ["eval", RUN, "--json"],
    ["status", RUN],
    ["status", RUN, "--json"],
    ["runs"],
    ["runs", "--json"],
    ["runs", "show", RUN],
    ["runs", "compare", "bundled", RUN],
    ["runs", "export", RUN, "--csv", EXPORT],
    ["attach", RUN],
)
NUM_SOMETIMES = 3
"""Number of commands that are drawn from `SOMETIMES` for each directory."""


@dataclass(frozen=True)
class Trial:
    """One hostile input and the effect of reading it."""

    name: str
    """Description of the reader or command, and of the input."""
    result: ForkResult
    seconds: float
    """Elapsed time."""
    lost_or_changed: Sequence[str] = ()
    """Paths of files that should not have been changed."""

    @property
    def problem(self) -> str:
        """The rule that was violated, or "" if none was."""
        return f"changes {', '.join(self.lost_or_changed)}" if self.lost_or_changed else self.result.problem


@dataclass
class TrialSummary:
    """Counts, times and problems of many trials."""

    num_trials: int = 0
    exit_codes: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    slowest_seconds: float = 0.0
    slowest: str = ""
    megabytes: float = 0.0
    problems: list[str] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        """Count a trial, and print its problem."""
        self.num_trials += 1
        self.exit_codes[trial.result.code] += 1
        self.seconds += trial.seconds
        if trial.seconds > self.slowest_seconds:
            self.slowest_seconds, self.slowest = trial.seconds, trial.name
        self.megabytes = max(self.megabytes, trial.result.megabytes)
        if trial.problem:
            self.problems.append(f"{trial.name}: {trial.problem}")
            print(self.problems[-1], flush=True)

    def __str__(self) -> str:
        return json.dumps(
            {
                "trials": self.num_trials,
                "exit_codes": dict(sorted(self.exit_codes.items())),
                "seconds": round(self.seconds, 1),
                "slowest": f"{self.slowest_seconds:.2f} s: {self.slowest}",
                "max_megabytes": round(self.megabytes),
                "problems": len(self.problems),
            }
        )


class HostileTrials:
    """Trials with copies of a valid home in which files are replaced."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Make the valid home in the empty `folder`."""
        self.folder = folder
        self.rng = random.Random(seed)
        self.valid_home = folder / "valid"
        self.copy = folder / "copy"
        self.valid_home.mkdir()
        os.environ[VALID_HOME_VARIABLE] = str(self.valid_home)
        use_home(self.valid_home)
        self.forks = ForkRunner(folder)
        result = self.forks.run(self._make_home, START_SECONDS)
        assert result.code == 0, result
        self.files = {path: path.read_bytes() for path in sorted(self.valid_home.rglob("*")) if path.is_file()}
        self.mutator = Mutator(list(self.files.values()), MAX_MUTATED_BYTES)

    def read_files(self, number: int, only_readers: Sequence[str] = ()) -> Iterator[Trial]:
        """Read `number` hostile files: files made by hand, or a sample of them, then mutated files.

        Args:
            number: Number of trials.
            only_readers: Names of readers in `READERS`; all of them if empty.
        """
        readers = {name: reader for name, reader in READERS.items() if not only_readers or name in only_readers}
        made_by_hand = [(name, file) for name, reader in readers.items() for file in reader.all_hostile_files]
        if number < len(made_by_hand):
            made_by_hand = self.rng.sample(made_by_hand, number)
        for name, hostile_file in made_by_hand:
            yield self._read_file(name, self.rng.choice(self._valid_files(name)), hostile_file)
        for index in range(number - len(made_by_hand)):
            name = list(readers)[index % len(readers)]
            rng = random.Random(index)  # so that the index reproduces the file
            path = rng.choice(self._valid_files(name))
            content = self.mutator.mutate(self.files[path], rng)
            yield self._read_file(name, path, file_with(f"mutation {index}", content))

    def run_commands(self, number: int) -> Iterator[Trial]:
        """Damage `number` run directories, and run some commands on each."""
        for index in range(number):
            rng = random.Random(index)
            self._copy_home()
            damage = self._damage_run(rng)
            for command in (*ALWAYS, *rng.sample(SOMETIMES, NUM_SOMETIMES)):
                yield self._run_command(f"directory {index} ({damage}): {' '.join(command)}", command)

    def _make_home(self) -> int:
        make_home(self.valid_home)
        return 0

    def _copy_home(self) -> None:
        shutil.rmtree(self.copy, ignore_errors=True)
        shutil.copytree(self.valid_home, self.copy)

    def _valid_files(self, reader: str) -> list[Path]:
        paths = [path for path in self.files if path.match(str(self.valid_home / READERS[reader].file))]
        assert paths, f"the valid home has no file {READERS[reader].file}"
        return paths

    def _read_file(self, name: str, valid_path: Path, hostile_file: HostileFile) -> Trial:
        """Replace one file of a copy of the valid home, and read the file."""
        reader = READERS[name]
        self._copy_home()
        path = self.copy / valid_path.relative_to(self.valid_home)
        path.unlink()
        hostile_file.create(path)
        identity = None if reader.rewrites_file or not os.path.lexists(path) else _identity(path)

        def read() -> int:
            use_home(self.copy)
            try:
                reader.read(self.copy)
            except LotrError as error:
                print(f"lotr-tui: {error}", file=sys.stderr)
                return error.exit_code
            return 0

        start_time = time.monotonic()
        result = self.forks.run(read)
        seconds = time.monotonic() - start_time
        # A damaged file may have been set aside, under another name in the same folder.
        is_lost = identity is not None and identity not in map(_identity, path.parent.iterdir())
        return Trial(f"{name} ({path.name}), {hostile_file.name}", result, seconds, [str(path)] if is_lost else [])

    def _damage_run(self, rng: random.Random) -> str:
        """Damage the run of the copy in one to four places, and return a description."""
        run, damage = run_dir(self.copy), []
        if rng.random() < 0.1:
            link, target = rng.choice((("epochs", "outside"), ("log.txt", "outside/file"), ("lock", "outside/file")))
            (self.copy / "outside").mkdir()
            (self.copy / "outside" / "file").write_text("a file of another program\n")
            (self.copy / "outside" / ".1.safetensors.temporary").write_text("another file\n")
            path = run / link
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
            path.symlink_to(self.copy / target)
            damage.append(f"{link} is a link out of the run")
        for _ in range(rng.choice((1, 1, 2, 3))):
            files = [path for path in sorted(run.rglob("*")) if path.is_file() and not path.is_symlink()]
            if not files:
                break
            file = rng.choice(files)
            hostile_file = self._hostile_version(file, rng)
            file.unlink()
            hostile_file.create(file)
            damage.append(f"{file.name}: {hostile_file.name}")
        return ", ".join(damage)

    def _hostile_version(self, file: Path, rng: random.Random) -> HostileFile:
        """Return a file made by hand, or a mutation of `file`."""
        if rng.random() < 0.15 or file.stat().st_size > MAX_MUTATED_BYTES:
            readers = {Path(reader.file).name: reader for reader in READERS.values()}
            return rng.choice(readers[file.name].all_hostile_files if file.name in readers else FOR_ANY_READER)
        return file_with("mutated", self.mutator.mutate(file.read_bytes(), rng))

    def _run_command(self, name: str, command: Sequence[str]) -> Trial:
        export = self.folder / "export"
        shutil.rmtree(export, ignore_errors=True)
        arguments = ["lotr-tui", *(str(export) if argument == EXPORT else argument for argument in command)]
        is_resume = "--resume" in command
        may_change = (run_dir(self.copy), export) if is_resume else (export,)
        before = _snapshot(self.folder, may_change)
        start_time = time.monotonic()
        result = self.forks.run(partial(self._main, arguments), TRAINING_SECONDS if is_resume else CPU_SECONDS)
        seconds = time.monotonic() - start_time
        after = _snapshot(self.folder, may_change)
        changed = sorted({str(path) for path, _ in before.items() ^ after.items()})
        return Trial(name, result, seconds, changed)

    def _main(self, arguments: list[str]) -> int:
        use_home(self.copy)
        sys.argv = arguments
        try:
            lotr_tui_main()
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)


def _identity(path: Path) -> tuple[int, int, int]:
    """Return the inode, size and modification time, which a renamed file keeps."""
    status = path.lstat()
    return status.st_ino, status.st_size, 0 if path.is_dir() else status.st_mtime_ns


def _snapshot(folder: Path, excluded: Sequence[Path]) -> dict[Path, object]:
    """Return the mode, size and modification time of everything below a folder, and the content of small files.

    The entries of the folder itself, and everything in the `excluded` folders, are left out.
    """
    snapshot: dict[Path, object] = {}
    for path in folder.rglob("*"):
        if path.parent == folder or any(path.is_relative_to(other) for other in excluded):
            continue
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() and status.st_size < 1e6 else None
        snapshot[path] = (status.st_mode, status.st_size, status.st_mtime_ns if content is not None else 0, content)
    return snapshot


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=10_000, help="number of files")
    parser.add_argument("--directories", type=int, default=1_000, help="number of run directories")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", default=[], choices=[*READERS], help="use only this reader")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        hostile_trials = HostileTrials(Path(folder), options.seed)
        for name, trials in (
            ("files", hostile_trials.read_files(options.inputs, options.reader)),
            ("commands on directories", hostile_trials.run_commands(options.directories)),
        ):
            summary = TrialSummary()
            for trial in trials:
                summary.add(trial)
                if summary.num_trials % 1000 == 0:
                    print(summary, flush=True)
            print(name, summary, flush=True)
            failed = failed or bool(summary.problems)
    sys.exit(failed)


if __name__ == "__main__":
    main()
