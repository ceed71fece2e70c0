"""What the plain commands print: a corpus, an evaluation, the runs."""

import json
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from engine.config import DataConfig
from engine.corpus import Line, read_text
from engine.dataset import Dataset, Mode, encode_lines, join_lines, prepare, summarize
from engine.errors import CorpusError, printable
from engine.evaluation import evaluate, token_log_probs
from engine.ngram import KneserNey, Unigram
from engine.runs import METRICS, LoadedModel, list_runs, read_rows, resolve
from engine.runs import summarize as summarize_run
from engine.vocabulary import Ids


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


def print_evaluation(model: LoadedModel, split: str, text: str | None, *, baselines: bool, as_json: bool) -> None:
    """Print a run's perplexity on a split or a text, and those of the counting models beside it."""
    ids, dataset = _what_to_score(model, split, text, need_dataset=baselines)
    result = evaluate(model.decoder, ids)
    row: dict[str, object] = {
        "run": model.name,
        "split": text or split,
        "mode": model.config.data.mode,
        **asdict(result),
    }
    others = {}
    if baselines and dataset is not None:
        others = {
            "unigram": evaluate(Unigram(dataset.train, dataset.vocabulary), ids).perplexity,
            "kneser_ney_5": evaluate(KneserNey(dataset.train, dataset.vocabulary), ids).perplexity,
        }
        row["baselines"] = others
    if as_json:
        print(json.dumps(row))
        return
    table = Table("model", box=None, pad_edge=False)
    for heading in ("perplexity", "bits/token"):
        table.add_column(heading, justify="right")
    table.add_row(model.name, f"{result.perplexity:.2f}", f"{result.bits_per_token:.3f}")
    for name, perplexity in others.items():
        table.add_row(name, f"{perplexity:.2f}", f"{math.log2(perplexity):.3f}")
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print(
        printable(
            f"{text or split}, {model.config.data.mode} mode: {result.tokens:,} tokens, {result.unk_rate:.1%} <unk>"
        )
    )


def print_token_scores(model: LoadedModel, split: str, text: str | None) -> None:
    """Print one JSON object a token: id, text, natural-log probability."""
    ids, _ = _what_to_score(model, split, text, need_dataset=False)
    for token, score in zip(ids, token_log_probs(model.decoder, ids), strict=True):
        print(json.dumps({"id": int(token), "text": model.decoder.vocabulary.words[token], "logprob": float(score)}))


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
            _age(time.time() - run.started),
            f"{run.bytes / 1e6:.1f}",
        )
    Console(highlight=False).print(table)


def print_run(run: str, folder: Path | None) -> None:
    """Print a run's settings and its last rows as JSON."""
    path = resolve(run, folder)
    from engine.config import Config

    summary = summarize_run(path)
    config = Config.from_json((path / "config.json").read_text(encoding="utf-8"), str(path / "config.json"))
    rows = list(read_rows(path / METRICS))
    evaluations = [row for row in rows if row["event"] == "evaluated"]
    print(
        json.dumps(
            {
                **asdict(summary),
                "path": str(path),
                "config": json.loads(config.to_json()),
                "evaluations": [
                    [row.get("step"), row.get("epoch"), row.get("valid_perplexity")] for row in evaluations
                ],
            },
            indent=2,
        )
    )


def print_bench(repeat: int, *, as_json: bool) -> None:
    """Print each figure of the benchmark as soon as it is known: its median, and its lowest and highest run."""
    from lotr_tui.bench import measure

    for figure in measure(repeat):
        if as_json:
            print(json.dumps(asdict(figure)), flush=True)
        else:
            spread = f"({min(figure.runs):,.4g} to {max(figure.runs):,.4g})"
            print(f"{figure.median:10,.4g} {figure.unit:8} {spread:24} {figure.name}", flush=True)


def _what_to_score(
    model: LoadedModel, split: str, text: str | None, *, need_dataset: bool
) -> tuple[Ids, Dataset | None]:
    dataset = _dataset_of(model) if text is None or need_dataset else None
    if text is None:
        assert dataset is not None
        return dataset.part(split), dataset
    lines: Sequence[Line]
    if text == "-":
        lines = [Line(line) for line in sys.stdin.buffer.read().decode(errors="replace").splitlines()]
    else:
        lines = read_text(Path(text), min_characters=0).lines
    encoded = encode_lines(lines, model.decoder.vocabulary)
    if not encoded:
        raise CorpusError(f"--text {text} has no word; there is nothing to score")
    mode: Mode = model.config.data.mode
    return join_lines(encoded, mode), dataset


def _dataset_of(model: LoadedModel) -> Dataset:
    """The data a run was trained on, read again.

    Raises:
        CorpusError: it is not there any more, or is not the same.
    """
    dataset = prepare(model.config.data)
    changed = model.corpus_sha256 not in ("", dataset.corpus.sha256)
    if changed or dataset.vocabulary != model.decoder.vocabulary:
        raise CorpusError(
            f"{dataset.corpus.source} has changed since run {model.name} was trained on it; "
            "its splits are no longer those; use --text FILE"
        )
    return dataset


def _perplexity(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0, seconds):.0f} s"


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
