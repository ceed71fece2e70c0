"""Table of the speakers of a corpus: lines and words of each, and who speaks next."""

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from engine.config import DataConfig
from engine.data.speakers import SOMEONE, display_name
from engine.data.summary import DatasetSummary, SpeakerSummary
from engine.errors import printable
from lotr_tui.cli.console import make_table
from lotr_tui.formatting import plural

MAX_SPEAKERS = 10
"""Maximum number of speakers in the table of a corpus without a cast."""
MAX_CAST = 30
"""Maximum number of members of a cast in the table."""
MAX_PAIRS = 10
"""Maximum number of pairs of speakers that are shown."""


def describe_speakers(summary: DatasetSummary, config: DataConfig) -> str:
    """Return the number of speakers, and how many of them are in the cast."""
    count = f"{len(summary.speakers):,}"
    if not summary.cast:
        return count
    return (
        f"{count}, of whom {len(summary.cast) - 1:,} with at least {plural(config.min_speaker_lines, 'line')} in train "
        "are the cast"
    )


def describe_pairs(summary: DatasetSummary) -> str:
    """Return the most frequent pairs of speakers of whom one speaks after the other."""
    return ", ".join(
        f"{display_name(pair.next_speaker)} after {display_name(pair.speaker)} {pair.count:,}"
        for pair in summary.speaker_pairs[:MAX_PAIRS]
    )


def make_speaker_table(summary: DatasetSummary) -> Table:
    """Return a table of the speakers with most lines or, in dialogue mode, of the cast; the others share a row."""
    table = make_table(["speaker"], ["lines", "words"])
    table.add_column("who speaks next, in %", overflow="fold")
    members = set(summary.cast)
    listed = [speaker for speaker in summary.speakers if not members or speaker.name in members - {SOMEONE}]
    listed = listed[: MAX_CAST if members else MAX_SPEAKERS]
    names = {speaker.name for speaker in listed}
    others = [speaker for speaker in summary.speakers if speaker.name not in names]
    for speaker in listed:
        table.add_row(
            Text(printable(display_name(speaker.name))),
            f"{speaker.num_lines:,}",
            f"{speaker.num_words:,}",
            Text(printable(_describe_next(speaker))),
        )
    if others:
        table.add_row(plural(len(others), "other"), *_total(others), "")
    return table


def _total(speakers: Sequence[SpeakerSummary]) -> tuple[str, str]:
    """Return the numbers of lines and of words of several speakers together."""
    return f"{sum(each.num_lines for each in speakers):,}", f"{sum(each.num_words for each in speakers):,}"


def _describe_next(speaker: SpeakerSummary) -> str:
    return ", ".join(
        f"{display_name(name)} {100 * count / speaker.num_followed:.0f}" for name, count in speaker.next_speakers
    )
