"""What the plain commands print: a corpus, the runs, the benchmark."""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.config import Config, DataConfig
from engine.data.dataset import prepare, summarize
from engine.errors import printable
from engine.runs.metrics import current_rows
from engine.runs.store import METRICS, kept_epochs, list_runs, read_config, resolve
from engine.runs.store import summarize as summarize_run
from engine.training.ablation import Trial, Variant, ablate, worth_of
from lotr_tui.formatting import ago

if TYPE_CHECKING:
    from lotr_tui.bench.figures import Figure


def print_summary(config: DataConfig, *, as_json: bool) -> None:
    """Print what there is to know about a corpus and its split."""
    dataset = prepare(config)
    summary = summarize(dataset)
    if as_json:
        read = {
            "path": dataset.corpus.source,
            "encoding": dataset.corpus.encoding,
            "separator": dataset.corpus.separator,
        }
        print(json.dumps({**read, "mode": dataset.mode, "split_seed": config.split_seed, **asdict(summary)}))
        return
    rows = [
        ("read as", f"{dataset.corpus.encoding}, separator: {dataset.corpus.separator}"),
        ("rows", f"{summary.rows:,}"),
        ("lines", f"{summary.lines:,} longer than {config.min_characters} characters"),
        ("words", f"{summary.words:,}, {summary.distinct_words:,} different"),
        (
            "vocabulary",
            f"{summary.vocabulary:,}: <unk>, <eos>, and words seen {config.min_count} times or more in train",
        ),
        ("mode", f"{dataset.mode}, split seed {config.split_seed}"),
        ("speakers", f"{len(summary.speakers)}: " + ", ".join(f"{name} {n}" for name, n in summary.speakers[:10])),
        ("longest line", f"{summary.longest_line_words} words: {_cut(summary.longest_line.text, 160)}"),
        ("most frequent", ", ".join(f"{word} {n}" for word, n in summary.most_frequent)),
    ]
    console = Console(highlight=False)
    facts = Table.grid(padding=(0, 2))
    for name, value in rows:
        facts.add_row(name, Text(printable(value)))
    console.print(facts)
    splits = Table("split", box=None, pad_edge=False)
    for heading in ("lines", "words", "<unk>"):
        splits.add_column(heading, justify="right")
    for name, part in summary.splits.items():
        splits.add_row(name, f"{part.lines:,}", f"{part.words:,}", f"{part.unk_share:.1%}")
    console.print(splits)


def print_runs(folder: Path | None, *, as_json: bool) -> None:
    """Print the runs of a folder, latest first."""
    found = list_runs(folder)
    if as_json:
        print(json.dumps([{**asdict(run), "path": str(run.path)} for run in found]))
        return
    if not found:
        print("no runs yet; `lotr-tui train` makes one", file=sys.stderr)
        return
    table = Table("run", "state", "preset", "mode", box=None, pad_edge=False)
    for heading in ("epochs", "valid", "test", "age", "MB"):
        table.add_column(heading, justify="right")
    for run in found:
        table.add_row(
            Text(printable(run.name)),
            run.state,
            Text(printable(run.preset)),
            run.mode,
            f"{run.epochs:.1f}",
            _perplexity(run.valid_perplexity),
            _perplexity(run.test_perplexity),
            ago(time.time() - run.started),
            f"{run.bytes / 1e6:.1f}",
        )
    Console(highlight=False).print(table)


def print_run(run: str, folder: Path | None) -> None:
    """Print a run's settings and its last rows as JSON."""
    path = resolve(run, folder)
    summary = summarize_run(path)
    config = read_config(path)
    rows = current_rows(path / METRICS, outline=True)
    evaluations = [row for row in rows if row["event"] == "evaluated"]
    print(
        json.dumps(
            {
                **asdict(summary),
                "path": str(path),
                "config": json.loads(config.to_json()),
                "kept_epochs": [asdict(kept) for kept in kept_epochs(path)],
                "evaluations": [
                    [row.get("step"), row.get("epoch"), row.get("valid_perplexity")] for row in evaluations
                ],
            },
            indent=2,
        )
    )


def print_ablation(config: Config, variants: Sequence[Variant], seeds: int, jobs: int, *, as_json: bool) -> None:
    """Train all variants; print each training as it ends, then the table."""
    trials: list[Trial] = []
    for trial in ablate(config, variants, range(seeds), jobs):
        trials.append(trial)
        if as_json:
            print(json.dumps(asdict(trial)), flush=True)
        else:
            result = f"valid {trial.valid_perplexity:.2f}  test {trial.test_perplexity:.2f}  {trial.seconds:.0f} s"
            print(
                f"{len(trials)}/{len(variants) * seeds}  {trial.variant}, seed {trial.seed}: {result}", file=sys.stderr
            )
    if as_json:
        return
    table = Table("variant", box=None, pad_edge=False)
    for heading in ("valid", "spread", "test", "spread"):
        table.add_column(heading, justify="right")
    for worth in worth_of(trials):
        figures = (worth.valid_mean, worth.valid_spread, worth.test_mean, worth.test_spread)
        table.add_row(Text(printable(worth.variant)), *(f"{figure:.2f}" for figure in figures))
    Console(highlight=False).print(table)


def print_bench(
    repeat: int, only: Sequence[str], ptb: Path | None = None, csv: Path | None = None, *, as_json: bool
) -> None:
    """Print each figure of the benchmark as soon as it is known: its lowest and highest run, and its limit."""
    from lotr_tui.bench import measure
    from lotr_tui.bench.figures import Figure

    for figure in measure(repeat, only, ptb, csv):
        if as_json:
            print(json.dumps(asdict(figure)), flush=True)
        elif isinstance(figure, Figure):
            spread = f"({min(figure.runs):,.4g} to {max(figure.runs):,.4g})"
            print(f"{figure.value:10,.4g} {figure.unit:8} {spread:22} {_held_to(figure):16} {figure.name}", flush=True)
        else:
            print(f"{'-':>10} {figure.name}: {figure.why}", flush=True)


def _held_to(figure: "Figure") -> str:
    bounds = [("at most", figure.limit), ("at least", figure.least)]
    said = [f"{name} {bound:,g}" for name, bound in bounds if bound is not None]
    return f"{'✓' if figure.within else '✗'} {', '.join(said)}" if said else ""


def _perplexity(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
