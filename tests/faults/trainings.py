"""Trainings of `lotr-tui train` in processes of their own, to be disturbed and compared with one that was not."""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.runs.metrics import current_rows, read_rows
from engine.runs.store import METRICS, MODEL, SAMPLES
from engine.storage.files import assets_folder

SETTINGS = {
    "embedding_size": 24,
    "hidden_size": 24,
    "epochs": 6,
    "threads": 1,
    "averaging": "ema",
    "checkpoint_seconds": 0.1,
    "evaluate_updates": 7,
}
LINES = 300
"""Of the bundled dialogues: most of the time is that of starting."""
SECONDS = 120.0
"""After which a training counts as hanging."""


class Trainings:
    """Trainings of the same text with the same settings, whose runs are in one folder."""

    def __init__(self, folder: Path, home: Path) -> None:
        """Train once undisturbed, to know the end.

        Args:
            folder: for the text and for what the trainings print.
            home: for the runs.
        """
        self.folder, self.home = folder, home
        self.corpus = folder / "lines.csv"
        lines = (assets_folder() / "dialogues.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        self.corpus.write_text("".join(lines[:LINES]), encoding="utf-8")
        self.finish("whole")
        self.whole = self._result("whole")

    def finish(self, name: str) -> float:
        """Train undisturbed; returns the seconds that it took."""
        started = time.monotonic()
        assert self.start(name).wait(SECONDS) == 0, f"the undisturbed training failed: {self.printed(name)}"
        return time.monotonic() - started

    def path(self, name: str) -> Path:
        """The run directory."""
        return self.home / "runs" / name

    def command(self, name: str, *, resume: bool = False) -> list[str]:
        """What trains the run, or goes on with it."""
        command = [sys.executable, "-m", "lotr_tui", "train"]
        if resume:
            return [*command, "--resume", name]
        changes = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
        return [*command, "--preset", "tiny", "--csv", str(self.corpus), "--run", name, *changes]

    def environment(self) -> dict[str, str]:
        """Of a training."""
        return {**os.environ, "LOTR_TUI_HOME": str(self.home), "LOTR_TUI_DEBUG": "1"}

    def start(self, name: str, *, resume: bool = False) -> "subprocess.Popen[bytes]":
        """Train the run, or go on with it; what is printed is collected."""
        with (self.folder / f"{name}.txt").open("ab") as output:
            command = [*self.command(name, resume=resume), "--json"]
            return subprocess.Popen(command, stdout=output, stderr=output, env=self.environment())

    def printed(self, name: str) -> str:
        """All that the trainings of a run have printed so far."""
        return (self.folder / f"{name}.txt").read_text(encoding="utf-8")

    def told(self, name: str) -> Iterator[dict[str, Any]]:
        """The events that were printed; of one that was killed the last line may be a part."""
        for line in self.printed(name).splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict):
                yield row

    def check_nothing_is_lost(self, name: str) -> int:
        """See that all that was told stands in the record; returns how many rows were told.

        Raises:
            AssertionError: something does not.
        """
        path = self.path(name)
        recorded = [
            *read_rows(path / METRICS),
            *(row for row in read_rows(path / SAMPLES) if row["event"] == "sampled"),
        ]
        told = Counter(map(_line, self.told(name)))
        lost = told - Counter(map(_line, recorded))
        assert not lost, f"{name}: {sum(lost.values())} of {sum(told.values())} rows are lost, as {next(iter(lost))}"
        return sum(told.values())

    def compare(self, name: str) -> None:
        """See that a training has ended as the undisturbed one.

        Raises:
            AssertionError: it has not, or has left something behind.
        """
        model, rows = self._result(name)
        assert rows == self.whole[1], f"{name}: other evaluations than undisturbed"
        assert model == self.whole[0], f"{name}: other weights than undisturbed"
        path = self.path(name)
        left = [item.name for item in (*path.rglob(".*"), *path.glob("resume*"))]
        assert not left, f"{name}: {left} are left behind"

    def _result(self, name: str) -> tuple[bytes, list[tuple[int, float]]]:
        path = self.path(name)
        rows = current_rows(path / METRICS)
        last = next(row for row in reversed(rows) if row["event"] not in ("checkpointed", "warned"))
        assert last["event"] == "finished", last
        assert last["reason"] == "done", last
        evaluated = [(row["step"], row["valid_perplexity"]) for row in rows if row["event"] == "evaluated"]
        return (path / MODEL).read_bytes(), evaluated


def _line(row: dict[str, Any]) -> str:
    """A row as one text; what is printed has the path of the run where the record has its name."""
    return json.dumps(row | ({"run": ""} if "run" in row else {}), sort_keys=True)
