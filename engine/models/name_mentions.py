"""Speakers that a line mentions or addresses by their names."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

MIN_NAME_LETTERS = 3
"""Minimum number of letters that a name and its variant share; in a shorter variant also half of the name."""
MAX_ADDED_LETTERS = 4
"""Maximum number of letters by which a variant is longer than the name, as in Samwise."""
MAX_CHARACTERS = 2000
"""Number of characters at the end of a line that are searched."""
_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_POSSESSIVE = re.compile(r"['’]s$", re.IGNORECASE)
_AFTER_ADDRESS = (",", ".", ";", ":", "!", "?")


@dataclass(frozen=True)
class Mentions:
    """Speakers that a line mentions, as indices in the cast."""

    named: frozenset[int] = frozenset()
    """Speakers whose names the line contains, but not in the possessive."""
    addressed: frozenset[int] = frozenset()
    """Named speakers whose names end the line or come before a punctuation mark, as in "Run, Frodo!"."""


NO_MENTIONS = Mentions()


@dataclass(frozen=True)
class _Names:
    """Names of a cast, for fast lookup."""

    by_first_word: dict[str, tuple[tuple[tuple[str, ...], int], ...]]
    """Words of the names, and their speakers, by the first word in lower case."""
    by_prefix: dict[str, frozenset[int]]
    """Speakers by the beginnings of their names of one word that are long enough for a variant."""


def find_mentions(text: str, cast: Sequence[str]) -> Mentions:
    """Return the speakers that `text` mentions. The last member of the cast, SOMEONE, has no name.

    A name counts in any case. A variant of a name of one word, such as Pip for Pippin or Samwise for Sam, counts if it
    begins with a capital letter.
    """
    text = text[-MAX_CHARACTERS:]
    names = _index_names(tuple(cast))
    matches = list(_WORD.finditer(text))
    words = [match[0].lower() for match in matches]
    named: set[int] = set()
    addressed: set[int] = set()
    for position, (match, word) in enumerate(zip(matches, words, strict=True)):
        found = {
            (speaker, position + len(parts) - 1)
            for parts, speaker in names.by_first_word.get(word, ())
            if tuple(words[position : position + len(parts)]) == parts
        }
        if not found and match[0][0].isupper():
            found = {(speaker, position) for speaker in _variants(word, names)}
        for speaker, last in found:
            named.add(speaker)
            after = text[matches[last].end() :].lstrip()[:1]
            if not after or after in _AFTER_ADDRESS:
                addressed.add(speaker)
    return Mentions(frozenset(named), frozenset(addressed))


def _variants(word: str, names: _Names) -> frozenset[int]:
    """Return the speakers whose names are a little longer or shorter than `word` and begin alike."""
    if len(word) < MIN_NAME_LETTERS or _POSSESSIVE.search(word):
        return frozenset()
    speakers = set(names.by_prefix.get(word, ()))
    for length in range(max(MIN_NAME_LETTERS, len(word) - MAX_ADDED_LETTERS), len(word)):
        speakers.update(speaker for parts, speaker in names.by_first_word.get(word[:length], ()) if len(parts) == 1)
    return frozenset(speakers)


@lru_cache(maxsize=8)
def _index_names(cast: tuple[str, ...]) -> _Names:
    by_first_word: defaultdict[str, list[tuple[tuple[str, ...], int]]] = defaultdict(list)
    by_prefix: defaultdict[str, set[int]] = defaultdict(set)
    for speaker, name in enumerate(cast[:-1]):
        parts = tuple(_WORD.findall(name.lower()))
        if not parts:
            continue
        by_first_word[parts[0]].append((parts, speaker))
        if len(parts) == 1:
            for length in range(max(MIN_NAME_LETTERS, (len(name) + 1) // 2), len(name)):
                by_prefix[name[:length].lower()].add(speaker)
    return _Names(
        {word: tuple(found) for word, found in by_first_word.items()},
        {prefix: frozenset(speakers) for prefix, speakers in by_prefix.items()},
    )
