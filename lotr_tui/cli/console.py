"""Input and output of the plain commands: standard input, tables and JSON."""

import json
import math
import os
import re
import shutil
import sys
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from engine.data.tokenizers import Tokenizer
from engine.errors import InvalidInputError, printable
from engine.generation.generate import EncodedPrompt, list_shortened
from engine.models.pretrained.names import is_pretrained_name, parse_pretrained_name

MIN_TERMINAL_WIDTH = 60  # cells; a narrower terminal wraps the lines itself
MIN_TEXT_WIDTH = 16  # that a column of text keeps, or the width of its longest text, where a table leaves numbers out
COLUMN_GAP = 2
MAX_LISTED_WORDS = 20  # unknown words that a message lists; JSON has all of them
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def terminal_width() -> int:
    """Return the width of the terminal in cells, or of COLUMNS where it is set; 80 if neither is known."""
    return max(MIN_TERMINAL_WIDTH, shutil.get_terminal_size().columns or 80)


def make_console() -> Console:
    """Return a console for standard output that is as wide as the terminal, and unlimited where there is none."""
    width = terminal_width() if sys.stdout.isatty() else 1_000_000
    # With a width alone, Rich assumes 80 columns in a dumb terminal.
    return Console(highlight=False, markup=False, emoji=False, width=width, height=24)


def print_table(texts: Sequence[str], numbers: Sequence[str], rows: Sequence[Sequence[str]], *remarks: str) -> None:
    """Print a table of columns of text with the headings `texts`, then of `numbers`, then of text again: `remarks`.

    A narrow terminal gets fewer of the last columns, but at least one of numbers. A text may continue on the next line.
    """
    console, headings = make_console(), [*texts, *numbers, *remarks]
    is_text = [*[True] * len(texts), *[False] * len(numbers), *[True] * len(remarks)]
    widths = [max(map(cell_len, cells)) for cells in zip(headings, *rows, strict=True)]
    widths = [min(size, MIN_TEXT_WIDTH) if text else size for size, text in zip(widths, is_text, strict=True)]
    count = len(headings)
    while count > len(texts) + 1 and sum(widths[:count]) + COLUMN_GAP * (count - 1) > console.width:
        count -= 1
    table = Table(box=None, pad_edge=False)
    for heading, text in list(zip(headings, is_text, strict=True))[:count]:
        table.add_column(heading, justify="left" if text else "right", no_wrap=not text, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row[:count]))
    console.print(table)


def show_progress(count: ProgressColumn) -> Progress:
    """Return bars that are shown on standard error, if it is a terminal."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), count, TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


def print_json(value: object, indent: int | None = None) -> None:
    """Print `value` at once, as ASCII JSON that every parser reads.

    A byte of an argument or a file name that is not UTF-8 becomes U+FFFD, and a number that is not finite null.
    """
    print(json.dumps(_replace_invalid(value), indent=indent, allow_nan=False), flush=True)


def _replace_invalid(value: object) -> object:
    match value:
        case str():
            return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", value)
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {_replace_invalid(key): _replace_invalid(item) for key, item in value.items()}
        case list() | tuple():
            return [_replace_invalid(item) for item in value]
    return value


def report_unknown_text(prompt: EncodedPrompt, tokenizer: Tokenizer) -> None:
    """Print on stderr which parts of a prompt the model does not know, if there are any."""
    skipped = [text for text in prompt.unknown_tokens if not tokenizer.spans(text)]
    rare = [text for text in prompt.unknown_tokens if text not in skipped]
    reason = "skipped, because the model reads only words of a to z, digits and apostrophes"
    for words, remark in ((rare, "not in the vocabulary, read as rare words"), (skipped, reason)):
        if words:
            print(printable(f"{remark}: {list_shortened(words, MAX_LISTED_WORDS)}"), file=sys.stderr)


def read_text(text: str | None, name: str, example: str, max_bytes: int) -> str:
    """Return the argument `name`, or standard input where it is "-" or missing.

    A byte that is not UTF-8 becomes a lone surrogate.
    """
    if text is None and sys.stdin.isatty():
        raise InvalidInputError(f"{name} is missing; give one, such as `{example}`")
    if text not in (None, "-"):
        return str(text)
    content = sys.stdin.buffer.read(max_bytes + 1 or -1)  # one byte more than allowed, so that endless input ends here
    if b"\0" in content:
        raise InvalidInputError("standard input contains NUL bytes, so it is not text; use a text")
    if len(content) > max_bytes >= 0:
        raise InvalidInputError(f"standard input has over {max_bytes:,} bytes; use a part of it")
    return content.decode(errors="surrogateescape")


def discard_output() -> None:
    """Send standard output to the null device from now on, including the text that is still buffered."""
    null_device = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null_device, sys.stdout.fileno())
    os.close(null_device)


def report_names(names: Sequence[str]) -> list[str]:
    """Return the names of models as tables show them: of a folder or file only the last part, if it is unique."""
    short = []
    for name in names:
        source = parse_pretrained_name(name) if is_pretrained_name(name) else None
        is_whole = source is None or source.kind in ("hub", "stored")
        short.append(name if is_whole or source is None else f"{name.partition(':')[0]}:{source.short_name}")
    return [label if short.count(label) == 1 else name for name, label in zip(names, short, strict=True)]
