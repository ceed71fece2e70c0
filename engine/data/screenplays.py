"""Screenplays: Fountain (https://fountain.io/syntax), and other texts with a name in capitals alone above its speech.

Libraries for Fountain make PDFs and keep the whole layout; here, only speeches and their scenes matter.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

FOUNTAIN_SUFFIX = ".fountain"
MAX_CUE_CHARACTERS = 60
MIN_SPEECH_FRACTION = 0.05  # A text is a screenplay if it has a speech for this fraction of its lines,
MIN_REPEATED_FRACTION = 0.5  # and this fraction of the speeches has a speaker who speaks again; no title does.

_HEADING = re.compile(r"(?:INT|EXT|EST|I/E)[./ ]|\.(?!\.)", re.IGNORECASE)
_BRACKETS = re.compile(r"\([^()]*\)|\[[^\[\]]*\]")  # parentheticals and notes
_EMPHASIS = str.maketrans("", "", "*_~")


def read_screenplay(lines: Iterable[str]) -> Iterator[tuple[str, str, int]]:
    """Yield the text, the speaker and the scene number of each speech; all else is left out.

    A speech ends at an empty line. Lines of a comment (`/* ... */`) are left out as a whole.
    """
    speaker, scene = "", 0
    follows_gap, is_comment = True, False
    parts: list[str] = []
    for line in chain(lines, [""]):
        text = line.strip()
        if is_comment or "/*" in text:
            is_comment = "*/" not in text
        elif not text:
            if speech := _speech(parts):
                yield speech, speaker, scene
            speaker, parts = "", []
            follows_gap = True
        elif speaker:
            parts.append(text)
        elif follows_gap:
            scene += _HEADING.match(text) is not None
            speaker = _cue(text)
            follows_gap = False


def _speech(parts: list[str]) -> str:
    without_notes = _BRACKETS.sub(" ", " ".join(parts))
    return " ".join(_BRACKETS.sub(" ", without_notes).translate(_EMPHASIS).split())


def _cue(line: str) -> str:
    """Return the name in a line that may stand above a speech, or "" if it is another line."""
    is_forced = line.startswith("@")
    name = _BRACKETS.sub(" ", line.removeprefix("@").removesuffix("^")).strip()
    is_short = 0 < len(name) <= MAX_CUE_CHARACTERS
    if not is_short or _HEADING.match(line) or ":" in name:
        return ""
    is_upper = name[0].isalnum() and name == name.upper() != name.lower() and name[-1] not in "!?"
    return name if is_forced or is_upper else ""


def is_screenplay(lines: Sequence[str], *, needs_scenes: bool) -> bool:
    """Return True if a text that begins with `lines` is a screenplay, with headings of scenes if it needs them."""
    speeches = list(read_screenplay(lines))
    counts = Counter(speaker for _, speaker, _ in speeches)
    num_repeated = sum(count for count in counts.values() if count > 1)
    has_scenes = any(scene for _, _, scene in speeches)
    return (
        num_repeated >= max(2, MIN_SPEECH_FRACTION * sum(not line.isspace() for line in filter(None, lines)))
        and num_repeated >= MIN_REPEATED_FRACTION * len(speeches)
        and (has_scenes or not needs_scenes)
    )
