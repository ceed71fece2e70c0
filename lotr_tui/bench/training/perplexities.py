"""The table of perplexities on a corpus of dialogues: trainings, a student of them, and mixtures.

`python -m lotr_tui.bench.training.perplexities --csv FILE` trains every model of the table for three splits and prints
it. A model that is done is not trained again, so a command that was interrupted continues.
"""

import argparse
import json
import statistics
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lotr_tui.bench.programs import SESSION_COMMAND
from lotr_tui.bench.terminal import BenchError

SPLIT_SEEDS = (1234, 0, 1)
SEEDS = (0, 1, 2)
"""Seeds of the trainings whose median is a row of a single model."""
NUM_TEACHERS = 4
MIXTURES = (
    ("ensemble", ()),
    ("… with dynamic evaluation", ("--dynamic",)),
    ("… and a cache", ("--dynamic", "--cache")),
    ("… and Kneser-Ney", ("--dynamic", "--cache", "--mixture")),
)
"""Name and options of `eval` of each row that combines models."""


@dataclass(frozen=True)
class Scores:
    """Perplexities of one model on one split."""

    valid: float
    test: float
    seconds: float = 0.0
    """Training time in seconds, including the time of teachers."""


@dataclass(frozen=True)
class Plan:
    """Folder of the runs of one split, and the options that all of these runs share."""

    runs_dir: Path
    csv: Path
    split_seed: int
    settings: tuple[str, ...] = ()
    """Options of all trainings, such as `--precision bf16`."""

    def train(self, name: str, *options: str) -> Scores:
        """Train the run `name` unless it is done, and return its perplexities.

        Raises:
            BenchError: If the training fails.
        """
        run = f"{name}-{self.split_seed}"
        path = self.runs_dir / f"{run}.json"
        if not path.exists():
            unfinished = ["--resume", run] if (self.runs_dir / run).exists() else ["--run", run]
            data = ["--mode", "stream", "--csv", str(self.csv), "--split-seed", str(self.split_seed)]
            new = [] if unfinished[0] == "--resume" else [*data, "--threads", "1", *self.settings, *options]
            output = self._run("train", "--no-tui", "--json", *unfinished, *new)
            path.write_text(output.splitlines()[-1])
        finished = json.loads(path.read_text())
        if finished["reason"] not in ("done", "patience"):
            path.unlink()
            raise BenchError(f"the training of {run} was stopped")
        return Scores(finished["valid_perplexity"], finished["test_perplexity"], finished["seconds"])

    def evaluate(self, runs: Sequence[str], options: Sequence[str]) -> Scores:
        """Return the perplexities of a combination of runs; its weights are chosen on validation."""
        names = [option for run in runs for option in ("--run", f"{run}-{self.split_seed}")]
        values = [
            json.loads(self._run("eval", *names, *options, "--split", split, "--json")) for split in ("valid", "test")
        ]
        valid, test = (_best_perplexity(value) for value in values)
        return Scores(valid, test)

    def teacher_options(self, teachers: Sequence[str]) -> list[str]:
        """Return the options of `train` for runs that are teachers."""
        return [option for run in teachers for option in ("--teacher", f"{run}-{self.split_seed}")]

    def _run(self, *arguments: str) -> str:
        command = [*SESSION_COMMAND, *arguments, "--runs-dir", str(self.runs_dir)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode:
            raise BenchError(f"{' '.join(arguments)} failed: {process.stderr.strip()}")
        return process.stdout


def _best_perplexity(result: dict[str, Any]) -> float:
    """Return the perplexity of the last combination in the JSON output of `eval`."""
    return float(next(result[key] for key in ("mixture", "cache", "dynamic", "perplexity") if result.get(key)))


def measure_default(plan: Plan) -> Scores:
    """Return the median of several trainings of the preset `default`."""
    all_scores = [plan.train(f"default-{seed}", "--seed", str(seed)) for seed in SEEDS]
    return Scores(
        statistics.median(scores.valid for scores in all_scores),
        statistics.median(scores.test for scores in all_scores),
        statistics.median(scores.seconds for scores in all_scores),
    )


def measure_student(plan: Plan) -> Scores:
    """Return the scores of a student of `NUM_TEACHERS` trainings, with the time of all of them."""
    teachers = [f"default-{seed}" for seed in range(NUM_TEACHERS)]
    seconds = sum(plan.train(name, "--seed", name.partition("-")[2]).seconds for name in teachers)
    student = plan.train("student", "--preset", "student", *plan.teacher_options(teachers))
    return Scores(student.valid, student.test, student.seconds + seconds)


def measure_split(plan: Plan) -> list[Scores]:
    """Return the scores of all rows of the table for one split."""
    rows = [measure_default(plan), measure_student(plan)]
    members = [*(f"default-{seed}" for seed in range(NUM_TEACHERS)), "student"]
    return rows + [plan.evaluate(members, options) for _, options in MIXTURES]


def format_table(columns: Sequence[Sequence[Scores]]) -> Iterator[str]:
    """Yield the lines of the table as Markdown; `columns` has the scores of all rows for each split."""
    names = ["`default`, median of three", f"`student` of {NUM_TEACHERS}", *(name for name, _ in MIXTURES)]
    yield "| test (valid) | " + " | ".join(f"split {seed}" for seed in SPLIT_SEEDS) + " | training time, one core |"
    yield "| --- |" + " --- |" * (len(SPLIT_SEEDS) + 1)
    for name, scores in zip(names, zip(*columns, strict=True), strict=True):
        cells = [f"{each.test:.1f} ({each.valid:.1f})" for each in scores]
        minutes = statistics.median(each.seconds for each in scores) / 60
        yield f"| {name} | " + " | ".join(cells) + f" | {f'{minutes:.0f} min' if minutes else ''} |"


def main() -> None:
    """Train and evaluate all models, and print the table."""
    parser = argparse.ArgumentParser(prog="perplexities", description="Prints the table of perplexities.")
    parser.add_argument("--csv", type=Path, required=True, help="CSV file with the dialogues")
    parser.add_argument("--runs-dir", type=Path, default=Path("perplexities"), help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=1, help="splits at the same time, each with one thread")
    options, settings = parser.parse_known_args()
    options.runs_dir.mkdir(parents=True, exist_ok=True)
    plans = [Plan(options.runs_dir, options.csv.resolve(), seed, tuple(settings)) for seed in SPLIT_SEEDS]
    with ThreadPoolExecutor(options.jobs) as pool:
        columns = list(pool.map(measure_split, plans))
    print("\n".join(format_table(columns)))


if __name__ == "__main__":
    main()
