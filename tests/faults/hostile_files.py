"""Hostile and mutated files for every reader of the program, and damaged run directories for its commands.

    python -m tests.faults.hostile_files --made 1000 --mutated 100000 --directories 1000

Files are read in forks, with limits on time and memory. A reader returns, or raises a `LotrError` with one printable
line; it sends no control character to the terminal, and never overwrites a file that it cannot read. A command ends
with 0, 1 or 2 and at most one line of error, and changes nothing outside its run. The test suite runs a short form.
"""

import contextlib
import gc
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from functools import partial
from pathlib import Path

# Imported here so that no fork has to import them.
import optuna  # noqa: F401
import rich.table  # noqa: F401
import safetensors.numpy  # noqa: F401
import torch._dynamo  # noqa: F401 - the first optimizer imports it, which takes a second
import typer

import lotr_tui.cli.generate
import lotr_tui.cli.main  # noqa: F401
from engine.errors import MAX_MESSAGE_LENGTH, LotrError
from lotr_tui.__main__ import main as lotr_tui_main
from tests.faults import hostile_content as made
from tests.faults.hostile_content import RUN, file_with
from tests.faults.mutations import Mutator
from tests.faults.readers import READERS, run_dir, use_home

CPU_SECONDS = 5
LONG_CPU_SECONDS = 60  # maximum processor time of a batch of mutations, of a training, and of making the valid home
MAX_WAIT_FACTOR = 12
MAX_MEGABYTES = 500
ADDRESS_SPACE = 4_000_000_000  # maximum bytes that a fork may allocate in addition; protects the machine
MUTATIONS_PER_FORK = 50
FINDINGS_DIR = Path(tempfile.gettempdir()) / "lotr-tui-findings"
EXPORT = "EXPORT"
ALWAYS = (["generate", "the miller", "--run", RUN, "--seed", "1"], ["train", "--no-tui", "--resume", RUN])
SOMETIMES = (
    ["generate", "the miller", "--run", f"{RUN}@1", "--seed", "1", "--json"], ["eval", RUN, "--json"], ["status", RUN],
    ["runs"], ["runs", "--json"], ["runs", "show", RUN], ["runs", "compare", "bundled", RUN],
    ["runs", "export", RUN, "--csv", EXPORT], ["attach", RUN],
)  # fmt: skip


class HostileTrials:
    """Trials with copies of a valid home in which files are replaced. Each yields a line about its problem, or ""."""

    def __init__(self, folder, seed):
        self._folder, self._valid, self._copy = folder, folder / "valid", folder / "copy"
        self._seed, self._rng = seed, random.Random(seed)
        self._valid.mkdir()
        use_home(self._valid)
        gc.freeze()  # otherwise the garbage collection of a fork would copy the memory of this process
        self._idle_megabytes = 0.0
        self._idle_megabytes = self._fork(lambda: 0)[1]
        problem, _ = self._fork(partial(made.make_home, self._valid), LONG_CPU_SECONDS)
        assert not problem, problem
        self._files = {path: path.read_bytes() for path in sorted(self._valid.rglob("*")) if path.is_file()}
        self._mutator = Mutator(list(self._files.values()))

    def read_valid_files(self):
        """Read the valid files. Mutations of a file that is refused would not reach the code that parses the fields."""
        for name, reader in READERS.items():
            path = self._replace(self._valid_files(reader)[0])
            problem, _ = self._fork(partial(self._read, reader, path, refuses=False), LONG_CPU_SECONDS)
            yield problem and f"{name}, a valid file: {problem}"

    def read_files_made_by_hand(self, number):
        trials = []
        for name, reader in READERS.items():
            files = [*made.FOR_ANY_READER, *reader.hostile_files]
            trials += enumerate((name, file) for file in self._rng.sample(files, len(files)))
        for _, (name, hostile_file) in sorted(trials, key=lambda trial: trial[0])[:number]:
            path = self._replace(self._rng.choice(self._valid_files(READERS[name])), hostile_file)
            problem, _ = self._fork(partial(self._read, READERS[name], path))
            yield problem and f"{name}, {hostile_file.name}: {problem}"

    def read_mutated_files(self, number):
        num_batches = -(-number // MUTATIONS_PER_FORK)
        for index in range(max(num_batches, len(READERS))):
            name, reader = list(READERS.items())[index % len(READERS)]
            valid_path = self._rng.choice(self._valid_files(reader))
            path = self._replace(valid_path)
            size = min(MUTATIONS_PER_FORK, max(1, number // len(READERS)))
            problem, _ = self._fork(
                partial(self._read_batch, reader, path, self._files[valid_path], f"{self._seed} {index}", size),
                LONG_CPU_SECONDS,
            )
            if problem:
                FINDINGS_DIR.mkdir(exist_ok=True)
                finding = FINDINGS_DIR / f"{path.name}-{self._seed}-{index}"
                shutil.copy(self._folder / "mutated", finding)
                problem = f"{name}, {finding}: {problem}"
            for _ in range(size):
                yield problem
                problem = ""

    def run_commands(self, number):
        for index in range(number):
            rng = random.Random(f"{self._seed} {index}")
            self._copy_home()
            damage = self._damage_run(rng)
            for command in (*ALWAYS, *rng.sample(SOMETIMES, 3)):
                problem = self._run_command(command)
                yield problem and f"directory {index} ({damage}), {' '.join(command)}: {problem}"

    def _copy_home(self):
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._valid, self._copy)

    def _valid_files(self, reader):
        return [path for path in self._files if path.match(str(self._valid / reader.file))]

    def _replace(self, valid_path, hostile_file=None):
        self._copy_home()
        path = self._copy / valid_path.relative_to(self._valid)
        if hostile_file is not None:
            path.unlink()
            hostile_file.create(path)
        return path

    def _read(self, reader, path, *, refuses=True):
        """Read a file, and check that it is refused in one line, if at all, and not overwritten."""
        use_home(self._copy)
        before, message = _identity(path) if os.path.lexists(path) else None, ""
        try:
            reader.read(self._copy, path)
        except LotrError as error:
            message = str(error)
            if not refuses or not message.isprintable() or not 0 < len(message) <= MAX_MESSAGE_LENGTH:
                raise
        # A damaged file may have been set aside, under another name in the same folder.
        is_kept = before is None or before in map(_identity, path.parent.iterdir())
        assert is_kept or not message or reader.rewrites_file, f"{path} is overwritten; {message}"

    def _read_batch(self, reader, path, content, seed, size):
        rng = random.Random(seed)
        for _ in range(size):
            mutated = self._mutator.mutate(content, rng)
            (self._folder / "mutated").write_bytes(mutated)
            path.unlink(missing_ok=True)
            path.write_bytes(mutated)
            self._read(reader, path)

    def _damage_run(self, rng):
        run, damage = run_dir(self._copy), []
        if rng.random() < 0.1:
            name, target = rng.choice((("epochs", "outside"), ("log.txt", "outside/file"), ("lock", "outside/file")))
            (self._copy / "outside").mkdir()
            (self._copy / "outside" / "file").write_text("a file of another program\n")
            (self._copy / "outside" / ".1.safetensors.temporary").write_text("another file\n")
            shutil.rmtree(run / name, ignore_errors=True)
            (run / name).unlink(missing_ok=True)
            (run / name).symlink_to(self._copy / target)
            damage.append(f"{name} is a link out of the run")
        for _ in range(rng.choice((1, 1, 2, 3))):
            file = rng.choice([path for path in sorted(run.rglob("*")) if path.is_file() and not path.is_symlink()])
            hostile_file = file_with("mutated", self._mutator.mutate(file.read_bytes()[:1_000_000], rng))
            if rng.random() < 0.15:
                hostile_file = rng.choice([*made.FOR_ANY_READER, *made.METRICS, *made.TENSORS])
            file.unlink()
            hostile_file.create(file)
            damage.append(f"{file.name}: {hostile_file.name}")
        return ", ".join(damage)

    def _run_command(self, command):
        export = self._folder / "export"
        shutil.rmtree(export, ignore_errors=True)
        arguments = ["lotr-tui", *(str(export) if argument == EXPORT else argument for argument in command)]
        is_resume = "--resume" in command
        may_change = (run_dir(self._copy), export) if is_resume else (export,)
        before = _snapshot(self._folder, may_change)
        problem, _ = self._fork(
            partial(run_main, self._copy, arguments), LONG_CPU_SECONDS if is_resume else CPU_SECONDS
        )
        changed = sorted({str(path) for path, _ in before.items() ^ _snapshot(self._folder, may_change).items()})
        return f"changes {', '.join(changed)}" if changed else problem

    def _fork(self, function, cpu_seconds=CPU_SECONDS):
        """Run a function in a fork, and return the rule that it violated or "", and the memory that it took in MB."""
        output, errors = self._folder / "stdout", self._folder / "stderr"
        child = os.fork()
        if child == 0:
            code = 99
            try:
                limit_and_redirect(output, errors, cpu_seconds)
                code = function() or 0
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(Exception):
                    sys.stdout.flush()
                os._exit(code)
        _, status, usage = os.wait4(child, 0)
        code, megabytes = os.waitstatus_to_exitcode(status), usage.ru_maxrss / 1000 - self._idle_megabytes
        stdout, stderr = (path.read_bytes().decode(errors="backslashreplace") for path in (output, errors))
        lines = [line for line in (*stdout.split("\n"), *stderr.split("\n")) if not line.isprintable()]
        violations = {
            f"takes over {cpu_seconds} s": code in (-signal.SIGXCPU, -signal.SIGALRM),
            f"takes {megabytes:.0f} MB": self._idle_megabytes and megabytes > MAX_MEGABYTES,
            f"ends with {code}: {stderr[-3000:]}": code not in (0, 1, 2) or "Traceback" in stderr,
            f"ends with {code} without a reason of one line: {stderr[-2000:]!r}": code and stderr.count("\n") != 1,
            f"sends {lines[:1]} to the terminal": bool(lines),
        }
        return next((rule for rule, is_violated in violations.items() if is_violated), ""), megabytes


def run_main(home, arguments):
    use_home(home)
    os.environ.pop("LOTR_TUI_DEBUG", None)
    sys.argv = arguments
    try:
        lotr_tui_main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)


def limit_and_redirect(output, errors, cpu_seconds):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))  # works in extension modules too
    signal.alarm(MAX_WAIT_FACTOR * cpu_seconds)
    for path, number in ((os.devnull, 0), (output, 1), (errors, 2)):
        flags = os.O_RDWR if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        os.dup2(os.open(path, flags, 0o600), number)
    sys.stdin, sys.stdout = open(0, closefd=False), open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def _identity(path):
    """Return the inode, size and modification time, which a renamed file keeps."""
    status = path.lstat()
    return status.st_ino, status.st_size, 0 if path.is_dir() else status.st_mtime_ns


def _snapshot(folder, excluded):
    """Return the mode and content of everything in the folders of a folder, but not in the `excluded` ones."""
    snapshot = {}
    for path in folder.rglob("*"):
        if path.parent == folder or any(path.is_relative_to(other) for other in excluded):
            continue
        status = path.lstat()
        content = path.read_bytes() if path.is_file() and not path.is_symlink() and status.st_size < 1e6 else None
        snapshot[path] = (status.st_mode, status.st_size, content)
    return snapshot


def report(name, trials):
    """Print each problem at once, and then the numbers of trials and problems; return the number of problems."""
    num_trials = num_problems = 0
    for problem in trials:
        num_trials, num_problems = num_trials + 1, num_problems + bool(problem)
        if problem:
            print(problem, flush=True)
    print(f"{name}: {num_trials} trials, {num_problems} problems", flush=True)
    return num_problems


def main(made: int = 1000, mutated: int = 100_000, directories: int = 1000, seed: int = 0):
    with tempfile.TemporaryDirectory() as folder:
        hostile = HostileTrials(Path(folder), seed)
        num_problems = report("valid files", hostile.read_valid_files())
        num_problems += report("files made by hand", hostile.read_files_made_by_hand(made))
        num_problems += report("mutated files", hostile.read_mutated_files(mutated))
        num_problems += report("commands on damaged directories", hostile.run_commands(directories))
    sys.exit(bool(num_problems))


if __name__ == "__main__":
    typer.run(main)
