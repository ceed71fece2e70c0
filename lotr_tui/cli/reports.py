"""Tables and JSON of the plain commands: runs, ablation."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.text import Text

from engine.config import Config
from engine.errors import printable
from engine.runs.directory import METRICS_FILE, find_run_dirs, read_config, resolve_run, run_word
from engine.runs.loading import list_epoch_checkpoints
from engine.runs.metrics import read_current_rows
from engine.runs.summary import list_runs, summarize_run
from engine.storage.files import default_runs_dir
from engine.training.ablation import Trial, Variant, run_ablation, summarize_trials
from lotr_tui.cli.console import make_console, make_fitting_table, make_table, print_json
from lotr_tui.formatting import PRETRAINED_MARK_NOTE, format_age, format_run_perplexity


def print_runs(runs_dir: Path | None, *, as_json: bool) -> None:
    """Print the runs of a directory, latest first."""
    summaries = list_runs(runs_dir)
    if as_json:
        print_json([{**asdict(run), "path": str(run.path)} for run in summaries])
        return
    for path in sorted(set(find_run_dirs(runs_dir or default_runs_dir())) - {run.path for run in summaries}):
        print(printable(f"run {path.name} cannot be read; see `lotr-tui runs show {run_word(path)}`"), file=sys.stderr)
    if not summaries:
        print("no runs yet; start one with `lotr-tui train`", file=sys.stderr)
        return
    rows = [
        [
            printable(run.name),
            run.state,
            printable(run.preset),
            run.architecture,
            run.mode,
            f"{run.epochs:.1f}",
            format_run_perplexity(run.valid_perplexity, run),
            format_run_perplexity(run.test_perplexity, run),
            format_age(time.time() - run.started_at),
            f"{run.size_bytes / 1e6:.1f}",
        ]
        for run in summaries
    ]
    console = make_console()
    texts, numbers = ["run", "state", "preset", "model", "mode"], ["epochs", "valid", "test", "age", "MB"]
    console.print(make_fitting_table(console.width, texts, numbers, rows))
    if any(run.pretrained_on_other_text for run in summaries):
        console.print(PRETRAINED_MARK_NOTE)


def print_run(run: str, runs_dir: Path | None) -> None:
    """Print the settings, evaluations and saved epochs of a run as JSON."""
    path = resolve_run(run, runs_dir)
    rows = read_current_rows(path / METRICS_FILE, subsample=True)
    evaluations = [row for row in rows if row["event"] == "evaluated"]
    record = {
        **asdict(summarize_run(path)),
        "path": str(path),
        "config": json.loads(read_config(path).to_json()),
        "saved_epochs": [asdict(checkpoint) for checkpoint in list_epoch_checkpoints(path)],
        "evaluations": [[row.get(key) for key in ("step", "epoch", "valid_perplexity")] for row in evaluations],
    }
    print_json(record, indent=2)


def print_ablation(config: Config, variants: Sequence[Variant], seeds: int, jobs: int, *, as_json: bool) -> None:
    """Train all variants. Print each training when it ends, then the table."""
    trials: list[Trial] = []
    for trial in run_ablation(config, variants, range(seeds), jobs):
        trials.append(trial)
        if as_json:
            print_json(asdict(trial))
        else:
            progress = f"{len(trials)}/{len(variants) * seeds}  {trial.variant}, seed {trial.seed}"
            result = f"valid {trial.valid_perplexity:.2f}  test {trial.test_perplexity:.2f}  {trial.seconds:.0f} s"
            print(f"{progress}: {result}", file=sys.stderr)
    if as_json:
        return
    table = make_table(["variant"], ["valid", "spread", "test", "spread"])
    for variant, figures in summarize_trials(trials).items():
        table.add_row(Text(printable(variant)), *(f"{figure:.2f}" for figure in figures))
    make_console().print(table)
