"""Numbers, durations, model rows, bars and sparklines as short texts for the screens and the plain commands."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from engine.errors import printable

if TYPE_CHECKING:  # these modules import numpy, which the first paint must not load
    from engine.data.tokenizers import Tokenizer
    from engine.generation.generate import Done
    from engine.models.pretrained.base import LoadingProgress

STEERING = "steer "  # before the names of steering vectors among the changes of a model
MISSING = "-"  # a figure that is unknown or not finite
PRETRAINED_NOTE = "pre-trained on other text"  # beside each figure of a model that starts from a model by others
PRETRAINED_MARK_NOTE = f"* {PRETRAINED_NOTE}; three decimals: bits/character"  # below a list of runs
LINE_END_MARK = "¶"  # an `<eos>` at the place where it ends a line
SPECIAL_TOKEN_NAMES = {"<eos>": "end of line", "<unk>": "rare word", "<0x0A>": "new line"}  # on the screen only
END_OF_TEXT = "end of text"  # `<eos>` where line breaks are ordinary tokens
BLOCK_HEIGHTS = "▁▂▃▄▅▆▇█"
SPACE_MARK = "·"  # a space in a token that stands alone
JOINERS = "\u200c\u200d"  # of zero width and not printable, but part of Persian and Hindi words and of some emoji


def format_duration(seconds: float) -> str:
    """Return seconds as `0:42`, `3:05` or `1:02:03`, and "-" if they are not finite."""
    if not math.isfinite(seconds):
        return MISSING
    minutes, seconds = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def format_age(seconds: float) -> str:
    """Return seconds rounded to one unit, as `5 s`, `3 min`, `2 h` or `4 d`."""
    units = ((86_400, "d"), (3_600, "h"), (60, "min"))
    unit_seconds, unit = next((each for each in units if seconds >= each[0]), (1, "s"))
    return f"{max(0.0, seconds) / unit_seconds:.0f} {unit}"


def format_perplexity(perplexity: float | None) -> str:
    """Return a perplexity with one decimal, in exponent notation from 100,000 on, and "-" if unknown or not finite."""
    if perplexity is None or not math.isfinite(perplexity):
        return MISSING
    return f"{perplexity:.1f}" if perplexity < 99_999.95 else f"{perplexity:.1e}"


def format_percent(fraction: float) -> str:
    """Return a fraction from 0 to 1 as a percentage with two significant digits, as `41 %`, `1.2 %` or `<0.01 %`."""
    if not math.isfinite(fraction):
        return MISSING
    percent = 100 * fraction
    if 0 < percent < 0.01:
        return "<0.01 %"
    decimals = 0 if percent >= 10 or percent == 0 else 1 if percent >= 1 else 2 if percent >= 0.1 else 3
    return f"{percent:.{decimals}f} %"


def format_bytes(num_bytes: float, *, binary: bool = False) -> str:
    """Return a size as `512 B`, `12 kB`, `3.4 MB` or `1.2 GB`; with `binary`, as memory: `612 MiB` or `1.4 GiB`."""
    if binary:
        return f"{num_bytes / 2**30:.1f} GiB" if num_bytes >= 2**30 else f"{num_bytes / 2**20:.0f} MiB"
    if num_bytes < 999.5:
        return f"{num_bytes:.0f} B"
    if num_bytes < 999.5e3:
        return f"{num_bytes / 1e3:.0f} kB"
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes < 999.95e6 else f"{num_bytes / 1e9:,.1f} GB"


def format_needs(progress: "LoadingProgress") -> str:
    """Return what a model needs, such as `needs 571 MiB · about 68 tokens/s`; empty before it is known."""
    memory, speed = progress.memory_bytes, progress.tokens_per_second
    needed = [] if memory is None else [f"needs {format_bytes(memory, binary=True)}"]
    return " · ".join([*needed, *([] if speed is None else [f"about {speed:,.{0 if speed >= 3 else 1}f} tokens/s"])])


def format_count(value: float) -> str:
    """Return a number without decimals and with thousands separators, and "-" if it is not finite."""
    return f"{value:,.0f}" if math.isfinite(value) else MISSING


def plural(count: int, noun: str, plural_noun: str | None = None) -> str:
    """Return a count with its noun, as `1 word` or `1,200 words`; the default plural appends an "s"."""
    return f"{count:,} {noun if count == 1 else plural_noun or f'{noun}s'}"


def format_generation_speed(done: "Done", noun: str = "word") -> str:
    """Return the speed of a generated text, such as `900 words/s`; empty if it has no token whose time was measured."""
    speed = done.tokens_per_second if done.tokens else 0
    return "" if speed < 0.05 else f"{speed:,.{0 if speed >= 10 else 1}f} {noun}s/s"


def token_noun(tokenizer: "Tokenizer") -> str:
    """Return the noun for a token of a model: "word" for a closed vocabulary, "token" for an open one."""
    return "token" if tokenizer.is_open else "word"


def format_lone_token(text: str, *, ends_text: bool = False) -> str:
    """Return a token with visible spaces, or the name of a special one; with `ends_text`, `<eos>` ends a whole text."""
    if ends_text and text == "<eos>":
        return END_OF_TEXT
    return SPECIAL_TOKEN_NAMES.get(text) or text.replace(" ", SPACE_MARK)


def truncate(text: str, width: int) -> str:
    """Return a text of at most `width` cells; a longer text ends with an ellipsis."""
    return text if cell_len(text) <= width else set_cell_size(text, max(0, width - 1)).rstrip() + "…"[:width]


def fit_cells(text: str, width: int) -> str:
    """Return a text of exactly `width` cells: a longer one ends with an ellipsis, a shorter one is padded."""
    return set_cell_size(truncate(text, width), width)


def displayable(text: str) -> str:
    """Return generated text as a terminal can show it: line feeds stay, other control characters are replaced."""
    return "".join(
        c if c.isprintable() or c in "\n" + JOINERS else " " if c.isspace() else "\N{REPLACEMENT CHARACTER}"
        for c in text
    )


def describe_finish_reason(done: "Done", noun: str = "word") -> str:
    return {
        "eos": "end of line",
        "length": f"stopped at {plural(done.tokens, noun)}",
        "stop": "stop word",
        "cancelled": "stopped by you",
        "error": "stopped by an error",
    }[done.reason]


def describe_scale(change: str) -> tuple[str, str]:
    """Return what the strengths 0 and 1 of a change of a model are."""
    return (
        ("not steered", "the usual strength") if change.startswith(STEERING) else ("the model as it came", "as trained")
    )


def are_named(strengths: Mapping[str, float]) -> bool:
    """Return True if changes of a model are shown with their names, because they are several, or one is a vector."""
    return len(strengths) > 1 or any(name.startswith(STEERING) for name in strengths)


def describe_strengths(strengths: Mapping[str, float]) -> str:
    """Return how much of each change a model has, such as `strength 0.50`; empty if that is as trained."""
    if are_named(strengths):
        return " + ".join(f"{printable(name)} {strength:.2f}" for name, strength in strengths.items())
    return "".join(f"strength {strength:.2f}" for strength in strengths.values() if strength != 1)


def format_model_row(name: str, description: str, valid: str = "") -> str:
    """Return the row of a model in a list: name, description and validation figure in aligned columns."""
    figure = f" valid {valid:>6}" if valid else ""
    return f"{fit_cells(printable(name), 24)} {description:9}{figure}"  # fits a dialog of 60 columns


def bar(fraction: float, width: int) -> str:
    """Return a bar over `fraction` (0 to 1) of `width` cells, precise to an eighth of a cell."""
    full_cells, remainder = divmod(round(max(0.0, min(fraction, 1.0)) * width * 8), 8)
    return "█" * full_cells + " ▏▎▍▌▋▊▉"[remainder].strip()


def sparkline(values: Sequence[float], max_value: float | None = None) -> str:
    """Return a block per value, from 0 to `max_value` or the largest one; equal values are a line, NaN a space."""
    scale = max((value for value in values if math.isfinite(value)), default=0.0) if max_value is None else max_value
    blocks = ""
    for value in values:
        fraction = max(0.0, min(value / scale, 1.0)) if scale > 0 and math.isfinite(value) else 0.0
        blocks += BLOCK_HEIGHTS[min(7, int(fraction * 8))] if math.isfinite(value) else " "
    heights = set(blocks) - {" "}
    return blocks.replace(heights.pop(), "─") if max_value is None and len(heights) == 1 else blocks
