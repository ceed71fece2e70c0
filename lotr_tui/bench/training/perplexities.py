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

from lotr_tui.bench.programs import SESSION_COMMAND
from lotr_tui.bench.terminal import BenchError

SPLIT_SEEDS = (1234, 0, 1)
SEEDS = (0, 1, 2)
"""Seeds of the trainings whose median is a row of a single model."""
TEACHERS = tuple(f"default-{seed}" for seed in SEEDS)
"""Runs of these trainings, without the seed of the split."""
MIXTURES = {
    "plain": "ensemble of these four",
    "dynamic": "… with dynamic evaluation",
    "cache": "… and a cache",
    "mixture": "… and Kneser-Ney",
}
"""Names of the rows that combine models, by their key in the JSON output of `eval`."""


@dataclass(frozen=True)
class Scores:
    """Perplexities of one model on one split."""

    test: float
    valid: float | None = None
    """None for mixtures, whose weights are chosen on this split."""
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
        return Scores(finished["test_perplexity"], finished["valid_perplexity"], finished["seconds"])

    def evaluate(self, runs: Sequence[str]) -> list[Scores]:
        """Return the scores of all `MIXTURES` of the runs; their weights are chosen on validation."""
        names = [option for run in runs for option in ("--run", f"{run}-{self.split_seed}")]
        options = ["--dynamic", "--cache", "--mixture", "--split", "test", "--json"]
        result = json.loads(self._run("eval", *names, *options))
        return [Scores(result[key]) for key in MIXTURES]

    def teacher_options(self, teachers: Sequence[str]) -> list[str]:
        """Return the options of `train` for runs that are teachers."""
        return [option for run in teachers for option in ("--teacher", f"{run}-{self.split_seed}")]

    def _run(self, *arguments: str) -> str:
        command = [*SESSION_COMMAND, *arguments, "--runs-dir", str(self.runs_dir)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode:
            raise BenchError(f"{' '.join(arguments)} failed: {process.stderr.strip()}")
        return process.stdout


def measure_split(plan: Plan) -> list[Scores]:
    """Return the scores of all rows of the table for one split.

    The time of the student includes the time of its teachers, which are the trainings of the preset `default`.
    """
    trainings = [plan.train(name, "--seed", str(seed)) for name, seed in zip(TEACHERS, SEEDS, strict=True)]
    tests, valids, times = ([getattr(scores, name) for scores in trainings] for name in ("test", "valid", "seconds"))
    default = Scores(statistics.median(tests), statistics.median(valids), statistics.median(times))
    student = plan.train("student", "--preset", "student", *plan.teacher_options(TEACHERS))
    student = Scores(student.test, student.valid, student.seconds + sum(times))
    return [default, student, *plan.evaluate([*TEACHERS, "student"])]


def format_table(columns: Sequence[Sequence[Scores]]) -> Iterator[str]:
    """Yield the lines of the table as Markdown; `columns` has the scores of all rows for each split."""
    names = [f"`default`, median of {len(SEEDS)}", "`student` of these", *MIXTURES.values()]
    yield "| test (valid) | " + " | ".join(f"split {seed}" for seed in SPLIT_SEEDS) + " | training time, one core |"
    yield "| --- |" + " --- |" * (len(SPLIT_SEEDS) + 1)
    for name, scores in zip(names, zip(*columns, strict=True), strict=True):
        cells = [f"{each.test:.1f} ({each.valid:.1f})" if each.valid else f"{each.test:.1f}" for each in scores]
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
