"""Cast of a dialogue: the speakers of a training text that can be chosen to speak."""

from engine.data.arrays import chunked_bincount
from engine.data.lines import Lines
from engine.data.speakers import SOMEONE, display_name
from engine.data.tokenizers.loading import MAX_CAST_SIZE
from engine.errors import CorpusError


def choose_cast(lines: Lines, min_lines: int, source: str) -> tuple[str, ...]:
    """Return the speakers with at least `min_lines` of the training lines `lines`, most lines first, then SOMEONE.

    Speakers with equally many lines are in the order of their first lines in the file.

    Raises:
        CorpusError: If no speaker has `min_lines` lines, or too many have. The message names the file `source`.
    """
    counts = chunked_bincount(lines.speaker_ids, len(lines.speaker_names))
    named = [id for id, name in enumerate(lines.speaker_names) if name not in ("", SOMEONE)]
    by_count = sorted(named, key=lambda id: -int(counts[id]))
    cast = [lines.speaker_names[id] for id in by_count if counts[id] >= min_lines]
    if not named:
        raise CorpusError(
            f"{source} names no speakers, which dialogue mode needs; name another column with --speaker-column, "
            "or use --mode line"
        )
    if not cast:
        most = int(counts[by_count[0]])
        leading = f": {display_name(lines.speaker_names[by_count[0]])} has most, {most}" if most else ""
        raise CorpusError(
            f"{source}: no speaker has {min_lines} lines in the training split{leading}; "
            "use more text, or lower --set min_speaker_lines=N"
        )
    if len(cast) >= MAX_CAST_SIZE:
        raise CorpusError(
            f"{source} has {len(cast):,} speakers with {min_lines} lines, but a cast has {MAX_CAST_SIZE - 1:,} at "
            "most; raise --set min_speaker_lines=N"
        )
    return (*cast, SOMEONE)
