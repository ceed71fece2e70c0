"""Trainings in separate processes, compared with an undisturbed training of the same text and settings."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.runs.directory import METRICS_FILE, MODEL_FILE, SAMPLES_FILE
from engine.runs.metrics import read_current_rows, read_rows
from tests.faults.train_command import command_environment, resume_command, train_command, write_small_corpus

SETTINGS = {
    "embedding_size": 24,
    "hidden_size": 24,
    "epochs": 6,
    "threads": 1,
    "averaging": "ema",
    "checkpoint_seconds": 0.1,
    "eval_every_steps": 7,
}
TIMEOUT = 120.0
"""Seconds after which a training counts as hanging."""
REFERENCE = "reference"
"""Name of the undisturbed run."""


class ReferenceTraining:
    """Undisturbed training, and the means to start disturbed ones beside it and to compare them with it."""

    def __init__(self, folder: Path, home: Path) -> None:
        """Train the reference.

        Args:
            folder: Folder of the corpus and of the output of the trainings.
            home: Value of `LOTR_TUI_HOME`, where the runs are.
        """
        self.folder, self.home = folder, home
        self.corpus = write_small_corpus(folder / "lines.csv")
        self.duration = self._train_to_end(REFERENCE)
        """Seconds of the undisturbed training."""
        self.weights, self.evaluations = self._read_result(REFERENCE)

    def _train_to_end(self, name: str) -> float:
        """Train a run without disturbing it, and return the seconds that this took."""
        start_time = time.monotonic()
        assert self.start(name).wait(TIMEOUT) == 0, f"an undisturbed training failed: {self.output(name)}"
        return time.monotonic() - start_time

    def run_dir(self, name: str) -> Path:
        """Return the directory of a run."""
        return self.home / "runs" / name

    def command(self, name: str, *, resume: bool = False) -> list[str]:
        """Return the command that trains or resumes a run."""
        return resume_command(name) if resume else train_command(name, self.corpus, SETTINGS)

    def start(self, name: str, *, resume: bool = False) -> "subprocess.Popen[bytes]":
        """Start to train or resume a run. The output is appended to a file, which `output` reads."""
        command = [*self.command(name, resume=resume), "--json"]
        with self._output_file(name).open("ab") as file:
            return subprocess.Popen(command, stdout=file, stderr=file, env=command_environment(self.home, debug=True))

    def output(self, name: str) -> str:
        """Return everything that the trainings of a run have printed so far."""
        return self._output_file(name).read_text(encoding="utf-8")

    def printed_events(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield the events that the trainings of a run have printed. A line cut by a kill is skipped."""
        for line in self.output(name).splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row

    def check_no_event_is_lost(self, name: str) -> None:
        """Check that the run directory contains every event that was printed.

        Raises:
            AssertionError: If an event is missing.
        """
        run_dir = self.run_dir(name)
        recorded = [
            *read_rows(run_dir / METRICS_FILE),
            *(row for row in read_rows(run_dir / SAMPLES_FILE) if row["event"] == "sampled"),
        ]
        printed = Counter(map(_comparable_text, self.printed_events(name)))
        lost = printed - Counter(map(_comparable_text, recorded))
        assert not lost, f"{name}: {lost.total()} of {printed.total()} events are lost, such as {next(iter(lost))}"

    def check_equals_reference(self, name: str) -> None:
        """Check that a run has ended with the weights and evaluations of the reference, bit for bit.

        Raises:
            AssertionError: If something differs, or temporary files are left behind.
        """
        weights, evaluations = self._read_result(name)
        assert evaluations == self.evaluations, f"{name}: evaluations differ from the undisturbed training"
        assert weights == self.weights, f"{name}: weights differ from the undisturbed training"
        run_dir = self.run_dir(name)
        leftovers = [item.name for item in (*run_dir.rglob(".*"), *run_dir.glob("resume*"))]
        assert not leftovers, f"{name}: {leftovers} are left behind"

    def _output_file(self, name: str) -> Path:
        return self.folder / f"{name}.txt"

    def _read_result(self, name: str) -> tuple[bytes, list[tuple[int, float]]]:
        """Return the content of the model file, and the step and perplexity of each validation."""
        run_dir = self.run_dir(name)
        rows = read_current_rows(run_dir / METRICS_FILE)
        last = next(row for row in reversed(rows) if row["event"] not in ("checkpointed", "warned"))
        assert last["event"] == "finished", last
        assert last["reason"] == "done", last
        evaluations = [(row["step"], row["valid_perplexity"]) for row in rows if row["event"] == "evaluated"]
        return (run_dir / MODEL_FILE).read_bytes(), evaluations


def _comparable_text(row: dict[str, Any]) -> str:
    """Return a row as text without the run: the output has its path where the record has its name."""
    return json.dumps(row | ({"run": ""} if "run" in row else {}), sort_keys=True)
