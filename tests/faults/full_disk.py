"""A disk that fills up at random moments of trainings.

    python -m tests.faults.full_disk --fills 50

A full disk must be reported with the path and damage no file. Once there is space, everything must be written, and a
training must end bit for bit as an undisturbed one.
"""

import argparse
import errno
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from engine.runs.directory import METRICS_FILE, MODEL_FILE
from engine.runs.loading import load_model
from engine.runs.summary import is_finished
from tests.faults.trainings import REFERENCE, ReferenceTraining

WARNING_TIMEOUT = 30.0
"""Maximum seconds until a training reports a full disk. It saves 10 times per second."""
NAMESPACE_VARIABLE = "LOTR_TUI_TESTS_MOUNT_NAMESPACE"
UNSHARE_COMMANDS = (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"])
"""Commands that start another one in a new mount namespace: for root, and for other users if the system permits it."""
MOUNT_COMMAND = ("mount", "-t", "tmpfs", "-o", "size=16m", "none")


class SmallDisk:
    def __init__(self, path):
        self.path = path
        self._filler = path / "filler"

    def fill(self, free_bytes):
        with self._filler.open("wb") as file:
            while True:
                file_system = os.statvfs(self.path)
                size = file_system.f_bavail * file_system.f_frsize - free_bytes
                if size <= 0:
                    return
                try:
                    os.posix_fallocate(file.fileno(), 0, size)
                except OSError as error:  # another process has written meanwhile
                    if error.errno != errno.ENOSPC:
                        raise
                else:
                    return

    def free(self):
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(path):
    """Mount a small disk at the new folder `path`, in a process with a mount namespace of its own."""
    path.mkdir()
    subprocess.run([*MOUNT_COMMAND, str(path)], check=True, capture_output=True)
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def find_unshare_command():
    for command in UNSHARE_COMMANDS:
        with tempfile.TemporaryDirectory() as folder, suppress(FileNotFoundError, subprocess.CalledProcessError):
            subprocess.run([*command, *MOUNT_COMMAND, folder], check=True, capture_output=True)
            return command
    return None


class FullDiskTrainings(ReferenceTraining):
    def __init__(self, folder, disk, seed):
        super().__init__(folder, disk.path)
        self.disk = disk
        self.rng = random.Random(seed)
        self.max_file_size = max(file.stat().st_size for file in self.run_dir(REFERENCE).iterdir())

    def train_on_full_disk(self, name, max_warnings):
        """Train a run and fill the disk until the training has reported it `max_warnings` times; return how often."""
        num_warnings, run_dir, is_end_unsaved = 0, self.run_dir(name), False
        for attempt in count():
            process = self.start(name, resume=attempt > 0)
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(self.rng.uniform(0.05, 0.5))
                num_starts = sum(row.get("event") == "started" for row in self.printed_events(name))
                # Before a training has started, nothing is written.
                if num_warnings < max_warnings and num_starts > attempt and process.poll() is None:
                    num_warnings += self._fill_once(name, process)
            if process.returncode == 0:
                break
            # The disk was full at the end of the training, which must say so and be resumable.
            is_end_unsaved = True
            last_line = self.output(name).splitlines()[-1]
            assert "the end of the training is not saved" in last_line, last_line
            assert str(run_dir) in last_line, last_line
            if is_finished(run_dir):  # only a later row was lost; the checkpoints were not removed
                for checkpoint in run_dir.glob("resume*"):
                    checkpoint.unlink()
                break
        if not is_end_unsaved:
            self.check_no_event_is_lost(name)
        self.check_equals_reference(name)
        return num_warnings

    def _fill_once(self, name, process):
        """Fill the disk, wait for a warning, read the files of the run, and free the disk. Return True if warned."""
        num_earlier = len(self._warnings(name))
        self.disk.fill(self.rng.randrange(self.max_file_size))
        deadline, new = time.monotonic() + WARNING_TIMEOUT, []
        while not new and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
            new = self._warnings(name)[num_earlier:]
        assert all(str(self.run_dir(name)) in message for message in new), new
        if (self.run_dir(name) / MODEL_FILE).exists():
            load_model(self.run_dir(name))
        for line in (self.run_dir(name) / METRICS_FILE).read_bytes().split(b"\n")[:-1]:
            json.loads(line)
        self.disk.free()
        assert new or process.poll() is not None, "the training did not report the full disk"
        return bool(new)

    def _warnings(self, name):
        return [row["message"] for row in self.printed_events(name) if row.get("event") == "warned"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fills", type=int, default=50, help="times to fill the disk during trainings")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if NAMESPACE_VARIABLE not in os.environ:
        command = find_unshare_command()
        if command is None:
            sys.exit(
                "no file system can be mounted here; run as root, or allow `unshare --user --map-root-user --mount`"
            )
        os.environ[NAMESPACE_VARIABLE] = "1"
        os.execvp(command[0], [*command, sys.executable, "-m", "tests.faults.full_disk", *sys.argv[1:]])
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk") as disk:
        trainings, num_warnings = FullDiskTrainings(Path(folder), disk, options.seed), 0
        for number in count():
            if num_warnings >= options.fills:
                break
            num_warnings += trainings.train_on_full_disk(f"full-{number}", options.fills - num_warnings)
            print(f"disk full {num_warnings} times: same bits, nothing damaged", flush=True)


if __name__ == "__main__":
    main()
