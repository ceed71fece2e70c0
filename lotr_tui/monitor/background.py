"""Trainings that continue in the background after the terminal they were started from is closed."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from engine.errors import TrainingError, printable
from engine.runs.directory import lock_owner, run_word
from engine.runtime.process import get_process_info
from engine.storage.files import open_regular_file

CONSOLE_LOG = "console.txt"  # output of a training in the background, in its run directory
MAX_LOG_BYTES = 2_000_000  # from which the output is rotated; only one rotated file is kept
START_TIMEOUT = 60.0  # seconds to wait until the background process has locked the run
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT


def resume_in_background(path: Path) -> str:
    """Start a background process, or one per rank under torchrun, that resumes a run. Return a message for the user.

    If the process does not start to train, a TrainingError is raised; the run directory is then unchanged.
    """
    command, processes = [sys.executable, "-m"], get_process_info().world_size
    if processes > 1:  # the dashes keep torchrun from parsing our options
        command += ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m", "--"]
    command += ["lotr_tui", "train", "--resume", str(path), "--no-tui"]
    console_log = path / CONSOLE_LOG
    # A folder `engine` in the working directory would hide ours. A checkout that is not installed needs that directory.
    is_checkout = Path(__file__).resolve().parents[2] == Path.cwd()
    try:
        fd = open_regular_file(console_log, APPEND)
    except OSError as error:
        raise TrainingError(
            f"run {path.name} cannot continue in the background: {console_log} cannot be written: {error.strerror}"
        ) from error
    with os.fdopen(fd, "ab") as console:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
            env=dict(os.environ) if is_checkout else os.environ | {"PYTHONSAFEPATH": "1"},
        )
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        if lock_owner(path):
            return describe_background_run(path, process.pid)
        time.sleep(0.1)
    process.kill()
    raise TrainingError(
        f"run {path.name} did not start in the background; see {console_log}, "
        f"then resume it with: lotr-tui train --resume {run_word(path)}"
    )


def rotate_console_log(path: Path) -> None:
    """Rotate the console log of a run if it is the standard output of this process and has become too long."""
    console_log = path / CONSOLE_LOG
    with suppress(OSError):  # the log grows beyond its limit if it cannot be renamed
        status = os.fstat(sys.stdout.fileno())
        if status.st_size > MAX_LOG_BYTES and os.path.samestat(status, console_log.lstat()):
            console_log.replace(console_log.with_stem("console.1"))
            _redirect_output(open_regular_file(console_log, APPEND))


def describe_background_run(path: Path, pid: int) -> str:
    """Return lines that say which process trains a run in the background, and how to watch and stop it."""
    return f"run {printable(path.name)} continues in the background as process {pid}\n{attach_hint(path)}"


def attach_hint(path: Path) -> str:
    """Return lines that say how to watch and stop a training from another terminal."""
    name = run_word(path)
    return f"watch it from any terminal: lotr-tui attach {name}\nsave and stop it: lotr-tui stop {name}"


def detach_from_terminal() -> None:
    """Ignore further hang-up signals, and connect standard input and output to the null device."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null_device = os.open(os.devnull, os.O_RDWR)
    os.dup2(null_device, 0)
    _redirect_output(null_device)


def _redirect_output(fd: int) -> None:
    """Connect the output of libraries (1, 2) and of Python to `fd`, and close it."""
    streams = (stream.fileno() for stream in (sys.__stdout__, sys.__stderr__) if stream is not None)
    for output in {1, 2, *streams}:
        os.dup2(fd, output)
    os.close(fd)
