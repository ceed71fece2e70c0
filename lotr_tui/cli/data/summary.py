"""Summary of a corpus, of its speakers and of its splits, as tables or JSON."""

from collections.abc import Sequence
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from engine.config import DataConfig
from engine.data.dataset import load_dataset
from engine.data.summary import summarize_dataset
from engine.errors import printable
from lotr_tui.cli.console import make_console, make_table, print_json
from lotr_tui.cli.data.speaker_table import describe_pairs, describe_speakers, make_speaker_table


def print_data_summary(config: DataConfig, *, as_json: bool) -> None:
    """Print a summary of a corpus and of its splits."""
    dataset = load_dataset(config)
    summary = summarize_dataset(dataset)
    corpus = dataset.corpus
    if as_json:
        source = {"path": corpus.source, "encoding": corpus.encoding, "separator": corpus.separator}
        print_json(
            {
                **source,
                "tokenizer": config.tokenizer,
                "mode": dataset.mode,
                "split": config.split,
                "split_seed": config.split_seed,
                **asdict(summary),
            }
        )
        return
    closed = not dataset.tokenizer.is_open
    unit = "words" if closed else "tokens"
    limit = config.min_characters
    rows = [
        ("format", f"{corpus.encoding}, separator: {corpus.separator}"),
        ("rows", f"{summary.num_rows:,}"),
        ("lines", f"{summary.num_lines:,}{f' longer than {limit} characters' if limit >= 0 else ''}"),
        (unit, f"{summary.num_tokens:,}, {summary.num_distinct_tokens:,} distinct"),
        ("vocabulary", f"{summary.vocabulary_size:,}: {_describe_vocabulary(config)}"),
        ("mode", f"{dataset.mode}, split by {config.split}, split seed {config.split_seed}"),
        ("scenes", f"{summary.num_scenes:,}, of {config.scene_lines} lines or fewer"),
        ("speakers", describe_speakers(summary, config)),
        *([("marks", _join_counts(summary.marks))] if summary.marks else []),
        ("longest line", f"{summary.longest_line_tokens} {unit}: {_truncate(summary.longest_line.text, 160)}"),
        ("most frequent", _join_counts(summary.most_frequent, space="·")),
        *([("who follows", describe_pairs(summary))] if summary.speaker_pairs else []),
    ]
    console = make_console()
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(name, Text(printable(value)))
    console.print(grid)
    if summary.speakers:
        console.print(make_speaker_table(summary))
    splits = make_table(["split"], ["lines", unit, *(["rare words"] if closed else [])])
    for name, part in summary.splits.items():
        rare = [f"{100 * part.unk_rate:.1f} %"] if closed else []
        splits.add_row(name, f"{part.num_lines:,}", f"{part.num_tokens:,}", *rare)
    console.print(splits)


def _describe_vocabulary(config: DataConfig) -> str:
    """Return what the tokens of the vocabulary are."""
    if config.tokenizer == "bpe":
        return "end of line, 256 bytes, and pairs of tokens that are frequent in train"
    if config.tokenizer == "characters":
        return f"end of line, 256 bytes, and other characters seen at least {config.min_count} times in train"
    return f"words seen at least {config.min_count} times in train, end of line and rare word"


def _join_counts(counts: Sequence[tuple[str, int]], space: str = " ") -> str:
    """Return texts and their counts; each space in a text is shown as `space`."""
    return ", ".join(f"{text.replace(' ', space)} {count:,}" for text, count in counts)


def _truncate(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
