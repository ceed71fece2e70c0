"""Trainings that are killed, or lose their terminal, at random moments, and must end bit for bit as undisturbed ones.

    python -m tests.faults.interruptions --kills 200 --closes 20

Every second kill is aimed at the writing of a file: it comes a few milliseconds after a temporary file has appeared.
After each kill, the last saved model must load, and every printed event must be recorded.
A training that is killed before its first checkpoint may begin again only with --restart.

Before that, each file of a stopped run is deleted, or a bit of it changed. The run must be resumed bit for bit, or be
refused in one line with its models unchanged.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from contextlib import suppress
from itertools import count
from pathlib import Path

import typer

from engine.errors import InvalidInputError
from engine.events import Checkpointed, Evaluated, Sampled, Warned, event_to_dict
from engine.runs import directory
from engine.runs.loading import load_model
from engine.storage.files import assets_dir
from engine.training.job import resume_job
from tests.support.terminal import SESSION_COMMAND, Terminal, TerminalError

SETTINGS = (
    "embedding_size=24", "hidden_size=24", "epochs=6", "threads=1", "averaging=ema", "checkpoint_seconds=0.1",
    "eval_every_steps=7",
)  # fmt: skip
NUM_LINES = 300
"""Lines of the corpus. A training on them takes about as long as its start-up."""
TIMEOUT = 120.0
REFERENCE = "reference"
SLOWDOWN_PER_KILL = 1.05  # factor on the expected duration after each kill, so that a training reaches its end at last
MAX_WRITE_SECONDS = 0.002  # maximum seconds between the appearance of a temporary file and an aimed kill


class InterruptedTrainings:
    """Trainings that are disturbed, and an undisturbed one of the same text and settings, the reference."""

    def __init__(self, home, seed=0):
        """Train the reference; `home` is for the corpus, the output of trainings and their runs."""
        self.home, self.rng = home, random.Random(seed)
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
            has_checkpoint = (self.run_dir(name) / directory.RESUME_FILE).exists()
            return [*SESSION_COMMAND, "train", "--resume", name, *([] if has_checkpoint else ["--restart"])]
        settings = [f"--set={setting}" for setting in SETTINGS]
        corpus = str(self.home / "lines.csv")
        return [*SESSION_COMMAND, "train", "--preset", "tiny", "--csv", corpus, "--run", name, *settings]

    def damage(self, name, kinds=("deleted", "changed")):
        """Stop a training, and resume it without each of its files, or with a bit changed; yield what came of it."""
        process, stopped = self.start(name), self.run_dir(name)
        while not (stopped / directory.RESUME_FILE).exists():
            time.sleep(0.002)
        process.send_signal(signal.SIGINT)
        assert process.wait(TIMEOUT) == 128 + signal.SIGINT, self.output(name)
        for file in sorted(path.relative_to(stopped) for path in stopped.rglob("*") if path.is_file()):
            for kind in kinds:
                trial = f"{name}-{kind}-{file.name}"
                shutil.copytree(stopped, self.run_dir(trial))
                change = Path.unlink if kind == "deleted" else self._flip_bit
                change(self.run_dir(trial) / file)
                yield f"{file} {kind}: {self._resume_damaged(trial, with_metrics=file.name != directory.METRICS_FILE)}"

    def _flip_bit(self, path):
        content = bytearray(path.read_bytes() or b"0")
        content[self.rng.randrange(len(content))] ^= 1 << self.rng.randrange(8)
        path.write_bytes(content)

    def _resume_damaged(self, name, *, with_metrics):
        run_dir = self.run_dir(name)
        before = {path: path.read_bytes() for path in run_dir.rglob("*.safetensors")}
        refusal = ""
        try:
            for _ in resume_job(name, run_dir.parent).events(lambda: False):
                pass
        except InvalidInputError as error:
            refusal = f"refused: {error}"
        if not refusal:
            load_model(run_dir)
            self.check_equals_reference(name, with_metrics=with_metrics)
            return "same bits"
        assert refusal.isprintable(), f"{name}: {refusal}"
        assert before == {path: path.read_bytes() for path in run_dir.rglob("*.safetensors")}, f"{name}: {refusal}"
        return refusal

    def start(self, name, *, resume=False):
        """Start to train or resume a run. The output is appended to a file, which `output` reads."""
        environment = {**os.environ, "LOTR_TUI_HOME": str(self.home), "LOTR_TUI_DEBUG": "1"}
        with (self.home / f"{name}.txt").open("ab") as file:
            command = [*self.command(name, resume=resume), "--json"]
            return subprocess.Popen(command, stdout=file, stderr=file, env=environment)

    def output(self, name):
        return (self.home / f"{name}.txt").read_text(encoding="utf-8")

    def check_no_event_is_lost(self, name):
        run_dir = self.run_dir(name)
        samples = directory.read_events(run_dir / directory.SAMPLES_FILE)
        events = [*directory.read_events(run_dir / directory.METRICS_FILE)]
        events += [event for event in samples if isinstance(event, Sampled)]
        printed = [line for line in self.output(name).splitlines() if line.startswith('{"') and line.endswith("}")]
        lost = Counter(map(comparable_text, map(json.loads, printed)))  # a line cut by a kill is skipped
        lost -= Counter(comparable_text(event_to_dict(event)) for event in events)
        assert not lost, f"{name}: {lost.total()} events are lost, such as {next(iter(lost))}"

    def check_equals_reference(self, name, *, with_metrics=True):
        """Fail unless a run has ended with the weights and evaluations of the reference, bit for bit."""
        (weights, evaluations), (expected_weights, expected_evaluations) = self._read_result(name), self.result
        assert not with_metrics or evaluations == expected_evaluations, (
            f"{name}: evaluations differ from the undisturbed training"
        )
        assert weights == expected_weights, f"{name}: weights differ from the undisturbed training"
        leftovers = [item.name for item in (*self.run_dir(name).rglob(".*"), *self.run_dir(name).glob("resume*"))]
        assert not leftovers, f"{name}: {leftovers} are left behind"

    def _read_result(self, name):
        events = directory.drop_superseded(directory.read_events(self.run_dir(name) / directory.METRICS_FILE))
        last = next(event for event in reversed(events) if not isinstance(event, (Checkpointed, Warned)))
        assert getattr(last, "reason", "") == "done", last
        evaluations = [(event.step, event.valid_perplexity) for event in events if isinstance(event, Evaluated)]
        return (self.run_dir(name) / directory.MODEL_FILE).read_bytes(), evaluations

    def kill(self, name):
        num_kills, run_dir, process = 0, self.run_dir(name), self.start(name)
        while True:
            has_ended = self._wait_for_random_moment(process, run_dir, aimed=self.rng.random() < 0.5)
            had_model = (run_dir / directory.MODEL_FILE).exists()
            if has_ended:
                assert process.returncode == 0, self.output(name)
            else:
                process.kill()
                num_kills += process.wait() == -signal.SIGKILL  # otherwise the training ended just before
                self.duration *= SLOWDOWN_PER_KILL
            is_created = (run_dir / directory.CONFIG_FILE).exists()
            if had_model:
                load_model(run_dir)
            if is_created:
                self.check_no_event_is_lost(name)
            if is_created and directory.summarize_run(run_dir).state == "finished":
                if not has_ended:
                    # A training removes its checkpoints between the last row and its exit; a kill may leave them.
                    for checkpoint in run_dir.glob("resume*"):
                        checkpoint.unlink()
                self.check_equals_reference(name)
                return num_kills
            process = self.start(name, resume=is_created)

    def _wait_for_random_moment(self, process, run_dir, *, aimed):
        """Wait for a random time and, if `aimed`, until a file is being written. Return True if the training ended."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(self.rng.uniform(0, self.duration))
        while aimed and process.poll() is None and not list(run_dir.glob(".*")):
            time.sleep(0.0002)
        time.sleep(self.rng.uniform(0, MAX_WRITE_SECONDS))
        return process.poll() is not None

    def close_terminal(self, name):
        """Close the terminal of a dashboard at a random moment. The training must reach its end without a terminal."""
        run_dir = self.run_dir(name)
        with Terminal(self.command(name), 80, 24, self.home).spawn() as terminal:
            while not (run_dir / directory.METRICS_FILE).exists():  # before that, there is no training to continue
                terminal.read(0.02)
            close_time = time.monotonic() + self.rng.uniform(0, self.duration)
            with suppress(TerminalError):  # the program has ended
                while time.monotonic() < close_time and directory.lock_owner(run_dir):
                    terminal.read(0.02)
            terminal.hang_up()
            terminal.read_until_exit(TIMEOUT)
        assert terminal.exit_status == 0, f"{name} ended with {terminal.exit_status}"
        self.check_equals_reference(name)


def comparable_text(row):
    """Return a row as text without the run: the output has its path where the record has its name."""
    return json.dumps(row | ({"run": ""} if "run" in row else {}), sort_keys=True)


def main(kills: int = 50, closes: int = 20, seed: int = 0):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with tempfile.TemporaryDirectory() as folder:
        trainings, num_kills, names = InterruptedTrainings(Path(folder), seed), 0, map(str, count())
        for outcome in trainings.damage("damaged"):
            print(outcome, flush=True)
        while num_kills < kills:
            num_kills += trainings.kill(f"killed-{next(names)}")
            print(f"{num_kills} kills: same bits", flush=True)
        for number in range(closes):
            trainings.close_terminal(f"closed-{number}")
            print(f"{number + 1} closed terminals: same bits", flush=True)


if __name__ == "__main__":
    typer.run(main)
