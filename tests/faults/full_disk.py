"""A disk that fills up at random moments of trainings, and while sessions, prompts, settings and exports are saved.

    python -m tests.faults.full_disk --fills 50 --saves 50

A full disk must be reported with the path and damage no file. Once there is space, everything must be written, and a
training must end bit for bit as an undisturbed one. The test suite runs a short form.
"""

import argparse
import json
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from safetensors import safe_open

from engine.runs.directory import (
    CONFIG_FILE,
    METRICS_FILE,
    MODEL_FILE,
    PREVIOUS_RESUME_FILE,
    RESUME_FILE,
    SAMPLES_FILE,
    read_config_and_tokenizer,
)
from engine.runs.loading import load_model
from engine.runs.summary import is_finished
from tests.faults.full_disk_session import FullDiskSession
from tests.faults.reference_training import REFERENCE, ReferenceTraining
from tests.faults.small_disk import SmallDisk, restart_in_mount_namespace, small_disk

SAVES_PER_SESSION = 10
WARNING_TIMEOUT = 30.0
"""Maximum seconds until a training reports a full disk. It saves 10 times per second."""


class RunWatcher(threading.Thread):
    """Thread that reads the files of a run all the time, as viewers of the run do."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(daemon=True)
        self.run_dir = run_dir
        self.num_reads = 0
        self.num_resumes = 0
        """Resumes so far. Each may have ended a line that a killed process left torn; no other line may be torn."""
        self.problems: list[str] = []
        self._done = threading.Event()

    def run(self) -> None:
        """Read the files until `stop`."""
        while not self._done.wait(0.02):
            try:
                self._read_run()
            except Exception as error:  # a damaged file may cause any exception
                self.problems.append(f"{type(error).__name__}: {error}")
            self.num_reads += 1

    def stop(self) -> None:
        """End the thread.

        Raises:
            AssertionError: If a file was damaged.
        """
        self._done.set()
        self.join()
        assert not self.problems, self.problems[0]

    def _read_run(self) -> None:
        if not (self.run_dir / CONFIG_FILE).exists():
            return
        read_config_and_tokenizer(self.run_dir)
        if (self.run_dir / MODEL_FILE).exists():
            load_model(self.run_dir)
        for name in (RESUME_FILE, PREVIOUS_RESUME_FILE):
            # The file may be renamed at this moment.
            with suppress(FileNotFoundError), safe_open(self.run_dir / name, framework="numpy") as file:
                json.loads(file.metadata()["trainer_state"])
        for name in (METRICS_FILE, SAMPLES_FILE):
            with suppress(FileNotFoundError):
                lines = (self.run_dir / name).read_bytes().split(b"\n")[:-1]
                torn_lines = [line for line in lines if line and not _is_json(line)]
                assert len(torn_lines) <= self.num_resumes, f"{name}: {torn_lines}"


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


@dataclass
class FillResult:
    """Effects of filling the disk during one training."""

    num_warnings: int = 0
    """Number of reports of a full disk by the training."""
    num_reads: int = 0
    """Number of times that all files of the run were read meanwhile."""
    max_seconds: float = 0.0
    """Maximum seconds between a full disk and its warning."""


class FullDiskTrainings(ReferenceTraining):
    """Trainings on a disk that is filled, compared with the reference."""

    def __init__(self, folder: Path, disk: SmallDisk, seed: int = 0) -> None:
        super().__init__(folder, disk.path)
        self.disk = disk
        self.rng = random.Random(seed)
        self.max_file_size = max(file.stat().st_size for file in self.run_dir(REFERENCE).iterdir())

    def train_on_full_disk(self, name: str, max_warnings: int) -> FillResult:
        """Train a run and fill the disk meanwhile, until the training has reported it `max_warnings` times.

        Raises:
            AssertionError: If a warning does not name the path, a file is damaged, something was never written, or the
                training does not end as the reference.
        """
        result, run_dir, is_end_unsaved = FillResult(), self.run_dir(name), False
        watcher = RunWatcher(run_dir)
        watcher.start()
        for attempt in count():
            watcher.num_resumes = attempt
            process = self.start(name, resume=attempt > 0)
            while process.poll() is None:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(self.rng.uniform(0.05, 0.5))
                num_starts = sum(row.get("event") == "started" for row in self.printed_events(name))
                # Before a training has started, nothing is written.
                if result.num_warnings < max_warnings and num_starts > attempt and process.poll() is None:
                    seconds = self._fill_once(name, process)
                    result.num_warnings += seconds is not None
                    result.max_seconds = max(result.max_seconds, seconds or 0.0)
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
        watcher.stop()
        result.num_reads = watcher.num_reads
        if not is_end_unsaved:
            self.check_no_event_is_lost(name)
        self.check_equals_reference(name)
        return result

    def _fill_once(self, name: str, process: "subprocess.Popen[bytes]") -> float | None:
        """Fill the disk, wait for a warning and a while longer, and free the disk.

        Returns:
            Seconds until the warning; None if the training ended without one.
        """
        num_earlier = len(self._warnings(name))
        self.disk.fill(self.rng.randrange(self.max_file_size))
        start_time = time.monotonic()
        seconds = None
        while seconds is None and process.poll() is None and time.monotonic() - start_time < WARNING_TIMEOUT:
            time.sleep(0.005)
            for message in self._warnings(name)[num_earlier:]:
                seconds = time.monotonic() - start_time
                assert str(self.run_dir(name)) in message, message
        time.sleep(self.rng.uniform(0, 0.3))
        self.disk.free()
        assert seconds is not None or process.poll() is not None, "the training did not report the full disk"
        return seconds

    def _warnings(self, name: str) -> list[str]:
        return [row["message"] for row in self.printed_events(name) if row.get("event") == "warned"]


def run_trials(fills: int, saves: int, folder: Path, disk: SmallDisk, seed: int) -> Iterator[str]:
    """Save session files and train on a full disk that many times, and yield lines about the results.

    Raises:
        AssertionError: If something was damaged, lost or not reported.
    """
    num_failed = 0
    for number in range(saves):
        if number % SAVES_PER_SESSION == 0:
            session = FullDiskSession(disk.path / f"home-{number}", disk, seed + number)
        num_failed += session.save_on_full_disk()
    yield f"{saves} saves on a full disk, {num_failed} failed at first and were reported; no damage, all written later"
    if not fills:
        return
    trainings = FullDiskTrainings(folder, disk, seed)
    num_warnings = num_reads = 0
    for number in count():
        if num_warnings >= fills:
            break
        result = trainings.train_on_full_disk(f"full-{number}", fills - num_warnings)
        num_warnings += result.num_warnings
        num_reads += result.num_reads
        yield (
            f"disk full {result.num_warnings} times, then the same bits ({num_warnings} of {fills}); "
            f"reported within {result.max_seconds:.2f} s; no damage in {num_reads:,} reads"
        )


def main() -> None:
    """Run the long form."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fills", type=int, default=50, help="times to fill the disk during trainings")
    parser.add_argument("--saves", type=int, default=50, help="times to save the files of a session on a full disk")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    restart_in_mount_namespace("tests.faults.full_disk")
    with tempfile.TemporaryDirectory() as folder, small_disk(Path(folder) / "disk") as disk:
        for line in run_trials(options.fills, options.saves, Path(folder), disk, options.seed):
            print(line, flush=True)
    print(json.dumps({"fills": options.fills, "saves": options.saves, "all": "same bits, nothing damaged"}))


if __name__ == "__main__":
    main()
