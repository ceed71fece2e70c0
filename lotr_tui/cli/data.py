"""`lotr-tui data`: a corpus with its speakers and splits, and the speech of a book."""

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from engine.config import Config, DataConfig
from engine.data.dataset import load_dataset
from engine.data.speakers import SOMEONE, display_name
from engine.data.summary import DatasetSummary, summarize_dataset
from engine.data.tales import MIN_WORDS, write_speech
from engine.errors import InvalidInputError, printable
from engine.storage.files import absolute_path
from engine.training.initial_run import configure
from lotr_tui.cli import options
from lotr_tui.cli.console import print_json, print_table
from lotr_tui.cli.parser import add_command, argument, flag, make_group, option
from lotr_tui.formatting import plural, truncate

MAX_SPEAKERS, MAX_CAST, MAX_PAIRS = 10, 30, 10  # in the tables of a corpus, without and with a cast
MAX_LINE_WIDTH = 160
commands = make_group(name="data")


@commands.callback()
def data(context: typer.Context) -> None:
    """Describe a corpus, or find the speech in it."""
    if context.invoked_subcommand is None:
        print(context.get_help())


@dataclass(frozen=True)
class DataOptions:
    """Settings of a corpus that have options."""

    text_column: options.TextColumnOption = None
    speaker_column: options.SpeakerColumnOption = None
    tokenizer: options.TokenizerOption = None
    vocabulary_size: options.VocabularySizeOption = None
    mode: options.ModeOption = None
    split: options.SplitOption = None
    split_seed: options.SplitSeedOption = None


@add_command(commands, "info", "lotr-tui data info dialogues.csv --text-column line --mode dialogue")
def data_info(
    *,
    path: Annotated[Path, argument("FILE", "CSV; or plain text, if the name ends in .txt and no column is named.")],
    plain: Annotated[bool, flag("--plain", "Read as plain text, whatever the file name.", options.DATA)] = False,
    data: DataOptions,
    assignments: options.SetOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Describe a corpus, its speakers, and the splits that a training would make of it."""
    has_columns = data.text_column is not None or data.speaker_column is not None
    if plain and has_columns:
        raise InvalidInputError("--plain reads lines without columns; leave out --text-column and --speaker-column")
    options.check_vocabulary_size(data.vocabulary_size, data.tokenizer)
    values = {name: value for name, value in asdict(data).items() if value is not None}
    is_text = plain or (path.suffix == ".txt" and not has_columns)
    # An absolute path, so that no file name means the bundled corpus.
    values |= {"corpus": str(absolute_path(path)), "corpus_format": "text" if is_text else "csv"}
    config = configure(Config(), lambda config: config.with_values(**values).with_overrides(assignments or []))
    print_data_summary(config.data, as_json=as_json)


def print_data_summary(config: DataConfig, *, as_json: bool) -> None:
    """Print a summary of a corpus, of its speakers and of its splits."""
    dataset = load_dataset(config)
    corpus, summary = dataset.corpus, summarize_dataset(dataset)
    if as_json:
        facts = {"path": corpus.source, "encoding": corpus.encoding, "separator": corpus.separator}
        facts |= {"tokenizer": config.tokenizer, "mode": dataset.mode, "split": config.split}
        print_json({**facts, "split_seed": config.split_seed, **asdict(summary)})
        return
    is_closed, limit = not dataset.tokenizer.is_open, config.min_characters
    unit = "words" if is_closed else "tokens"
    vocabulary = {
        "bpe": "end of line, 256 bytes, and pairs of tokens that are frequent in train",
        "characters": f"end of line, 256 bytes, and other characters seen at least {config.min_count} times in train",
    }.get(config.tokenizer, f"words seen at least {config.min_count} times in train, end of line and rare word")
    speakers = f"{len(summary.speakers):,}"
    if summary.cast:
        speakers += f", of whom {len(summary.cast) - 1:,} with at least {plural(config.min_speaker_lines, 'line')}"
        speakers += " in train are the cast"
    longest = f"{summary.longest_line_tokens} {unit}: {truncate(printable(summary.longest_line.text), MAX_LINE_WIDTH)}"
    pairs = ", ".join(
        f"{display_name(pair.next_speaker)} after {display_name(pair.speaker)} {pair.count:,}"
        for pair in summary.speaker_pairs[:MAX_PAIRS]
    )
    rows = [
        ("format", f"{corpus.encoding}, separator: {corpus.separator}"),
        ("rows", f"{summary.num_rows:,}"),
        ("lines", f"{summary.num_lines:,}{f' longer than {limit} characters' if limit >= 0 else ''}"),
        (unit, f"{summary.num_tokens:,}, {summary.num_distinct_tokens:,} distinct"),
        ("vocabulary", f"{summary.vocabulary_size:,}: {vocabulary}"),
        ("mode", f"{dataset.mode}, split by {config.split}, split seed {config.split_seed}"),
        ("scenes", f"{summary.num_scenes:,}, of {config.scene_lines} lines or fewer"),
        ("speakers", speakers),
        ("longest line", longest),
        ("most frequent", ", ".join(f"{text.replace(' ', '·')} {count:,}" for text, count in summary.most_frequent)),
        ("who follows", pairs),
    ]
    for name, value in rows:
        if value:
            print(f"{name:15}{printable(value)}")
    if summary.speakers:
        _print_speakers(summary)
    splits = [
        [name, f"{part.num_lines:,}", f"{part.num_tokens:,}", *([f"{100 * part.unk_rate:.1f} %"] if is_closed else [])]
        for name, part in summary.splits.items()
    ]
    print_table(["split"], ["lines", unit, *(["rare words"] if is_closed else [])], splits)


def _print_speakers(summary: DatasetSummary) -> None:
    """Print the speakers with most lines or, in dialogue mode, the cast; the others share a row."""
    members = set(summary.cast) - {SOMEONE}
    listed = [speaker for speaker in summary.speakers if not members or speaker.name in members]
    listed = listed[: MAX_CAST if members else MAX_SPEAKERS]
    others = [speaker for speaker in summary.speakers if speaker not in listed]
    rows = []
    for speaker in listed:
        following = ", ".join(
            f"{display_name(name)} {100 * count / speaker.num_followed:.0f}" for name, count in speaker.next_speakers
        )
        name = printable(display_name(speaker.name))
        rows.append([name, f"{speaker.num_lines:,}", f"{speaker.num_words:,}", printable(following)])
    if others:
        lines, words = sum(each.num_lines for each in others), sum(each.num_words for each in others)
        rows.append([plural(len(others), "other"), f"{lines:,}", f"{words:,}", ""])
    print_table(["speaker"], ["lines", "words"], rows, "who speaks next, in %")


@add_command(commands, "speech", 'lotr-tui train --text "$(lotr-tui data speech novel.txt)"')
def data_speech(
    path: Annotated[Path, argument("FILE", "Plain text with one paragraph per line.")],
    output: Annotated[Path | None, option("--output", "FILE", "Default: NAME-speech.txt beside the text.")] = None,
) -> None:
    """Write the text between quotation marks, one quotation per line. Print the path of the file."""
    source = absolute_path(path)
    target = absolute_path(output) if output else source.with_name(f"{source.stem}-speech.txt")
    number = write_speech(source, target)
    print(f"quotations of {MIN_WORDS} words or more: {number:,}", file=sys.stderr)
    print(printable(str(target)))
