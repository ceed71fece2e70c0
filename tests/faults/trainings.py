"""Trainings in separate processes, compared with an undisturbed training of the same text and settings."""

import json
import os
import subprocess
import time
from collections import Counter

from engine.events import Checkpointed, Evaluated, Sampled, Warned, event_to_dict
from engine.runs.directory import METRICS_FILE, MODEL_FILE, SAMPLES_FILE, drop_superseded, read_events
from engine.storage.files import assets_dir
from tests.support.terminal import SESSION_COMMAND

SETTINGS = (
    "embedding_size=24", "hidden_size=24", "epochs=6", "threads=1", "averaging=ema", "checkpoint_seconds=0.1",
    "eval_every_steps=7",
)  # fmt: skip
NUM_LINES = 300
"""Lines of the corpus. A training on them takes about as long as its start-up."""
TIMEOUT = 120.0
REFERENCE = "reference"


class ReferenceTraining:
    """Undisturbed training, and the means to start disturbed ones beside it and to compare them with it."""

    def __init__(self, home):
        """Train the reference; `home` is for the corpus, the output of trainings and their runs."""
        self.home = home
        lines = (assets_dir() / "dialogues.csv").read_text(encoding="utf-8").splitlines(keepends=True)
        (home / "lines.csv").write_text("".join(lines[:NUM_LINES]), encoding="utf-8")
        start_time = time.monotonic()
        assert self.start(REFERENCE).wait(TIMEOUT) == 0, f"an undisturbed training failed: {self.output(REFERENCE)}"
        self.duration = time.monotonic() - start_time
        self.result = self._read_result(REFERENCE)

    def run_dir(self, name):
        return self.home / "runs" / name

    def command(self, name, *, resume=False):
        if resume:
            return [*SESSION_COMMAND, "train", "--resume", name]
        settings = [f"--set={setting}" for setting in SETTINGS]
        corpus = str(self.home / "lines.csv")
        return [*SESSION_COMMAND, "train", "--preset", "tiny", "--csv", corpus, "--run", name, *settings]

    def start(self, name, *, resume=False):
        """Start to train or resume a run. The output is appended to a file, which `output` reads."""
        environment = {**os.environ, "LOTR_TUI_HOME": str(self.home), "LOTR_TUI_DEBUG": "1"}
        with (self.home / f"{name}.txt").open("ab") as file:
            command = [*self.command(name, resume=resume), "--json"]
            return subprocess.Popen(command, stdout=file, stderr=file, env=environment)

    def output(self, name):
        return (self.home / f"{name}.txt").read_text(encoding="utf-8")

    def printed_events(self, name):
        """Yield the events that the trainings of a run have printed. A line cut by a kill is skipped."""
        for line in self.output(name).splitlines():
            if line.startswith('{"') and line.endswith("}"):
                yield json.loads(line)

    def check_no_event_is_lost(self, name):
        run_dir = self.run_dir(name)
        samples = [event for event in read_events(run_dir / SAMPLES_FILE) if isinstance(event, Sampled)]
        events = [*read_events(run_dir / METRICS_FILE), *samples]
        recorded = Counter(_comparable_text(event_to_dict(event)) for event in events)
        lost = Counter(map(_comparable_text, self.printed_events(name))) - recorded
        assert not lost, f"{name}: {lost.total()} events are lost, such as {next(iter(lost))}"

    def check_equals_reference(self, name):
        """Fail unless a run has ended with the weights and evaluations of the reference, bit for bit."""
        (weights, evaluations), (expected_weights, expected_evaluations) = self._read_result(name), self.result
        assert evaluations == expected_evaluations, f"{name}: evaluations differ from the undisturbed training"
        assert weights == expected_weights, f"{name}: weights differ from the undisturbed training"
        leftovers = [item.name for item in (*self.run_dir(name).rglob(".*"), *self.run_dir(name).glob("resume*"))]
        assert not leftovers, f"{name}: {leftovers} are left behind"

    def _read_result(self, name):
        events = drop_superseded(read_events(self.run_dir(name) / METRICS_FILE))
        last = next(event for event in reversed(events) if not isinstance(event, (Checkpointed, Warned)))
        assert getattr(last, "reason", "") == "done", last
        evaluations = [(event.step, event.valid_perplexity) for event in events if isinstance(event, Evaluated)]
        return (self.run_dir(name) / MODEL_FILE).read_bytes(), evaluations


def _comparable_text(row):
    """Return a row as text without the run: the output has its path where the record has its name."""
    return json.dumps(row | ({"run": ""} if "run" in row else {}), sort_keys=True)
