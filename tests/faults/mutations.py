"""What is done to valid files so that they become others: blindly, and by the tokens and JSON values that they have."""

import json
import random
import re
from collections.abc import Sequence
from contextlib import suppress

from tests.faults.hostile_content import NUMBERS, OTHERS, RAW, TEXTS, VALUE, mutated_tensors

LONGEST_TOKEN = 2000
_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*+"|[\w.-]+|[^\w\s]')
_NOBODY_WRITES = (*RAW, *(json.dumps(it).encode() for it in (*TEXTS, *NUMBERS, *OTHERS)))
_HOSTILE = [token for token in _NOBODY_WRITES if len(token) < LONGEST_TOKEN]


class Mutations:
    """Mutations of some files."""

    def __init__(self, seeds: Sequence[bytes], chance: random.Random) -> None:
        """Take tokens and values from `seeds`."""
        self.corpus = list(seeds)
        """What pieces are taken from."""
        self._chance = chance
        self._tokens = sorted({token for seed in seeds for token in _TOKEN.findall(seed)})
        of_seeds = {value for seed in seeds for value in VALUE.findall(seed)}
        self._values = [*sorted(of_seeds), *(token for token in _HOSTILE if _is_json(token))]

    def of(self, content: bytes, most: int) -> bytes:
        """Do something to an input, which has so many bytes at most afterwards."""
        chance = self._chance
        if content[8:9] == b"{" and chance.random() < 0.8:  # else hardly any header has the length that it claims
            with suppress(LookupError, TypeError, ValueError):  # it is no header any more
                content = mutated_tensors(content, chance)
        else:
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                content = chance.choice(_WAYS)(self, content)[:most]
        return content[:most]

    def _flip(self, content: bytes) -> bytes:
        place = self._place_in(content)
        return content[:place] + bytes([self._chance.randrange(256)]) + content[place + 1 :]

    def _cut(self, content: bytes) -> bytes:
        begin, end = self._span(content)
        return content[:begin] + content[end:]

    def _repeat(self, content: bytes) -> bytes:
        begin, end = self._span(content)
        return content[:end] + content[begin:end] * self._chance.choice((1, 1, 2, 70)) + content[end:]

    def _splice(self, content: bytes) -> bytes:
        begin, end = self._span(other := self._chance.choice(self.corpus))
        place = self._place_in(content)
        return (
            content[:place]
            + other[begin:end]
            + content[place if self._chance.random() < 0.5 else place + end - begin :]
        )

    def _put_token(self, content: bytes) -> bytes:
        """A token in the place of another one, or in front of it."""
        places = [match.span() for match in _TOKEN.finditer(content)]
        begin, end = self._chance.choice(places) if places else (0, 0)
        token = self._chance.choice(self._tokens if self._chance.random() < 0.7 else _HOSTILE)
        return content[:begin] + token + content[begin if self._chance.random() < 0.2 else end :]

    def _place_in(self, content: bytes) -> int:
        return self._chance.randrange(len(content) + 1)

    def _span(self, content: bytes) -> tuple[int, int]:
        """Most are short."""
        begin = self._place_in(content)
        return begin, min(len(content), begin + self._chance.choice((1, 2, 4, 16, 64, len(content))))

    def _lines(self, content: bytes) -> bytes:
        """A line left out, said twice, or put elsewhere."""
        lines = content.splitlines(keepends=True) or [content]
        line = lines.pop(self._chance.randrange(len(lines)))
        for _ in range(self._chance.randrange(3)):
            lines.insert(self._chance.randrange(len(lines) + 1), line)
        return b"".join(lines)

    def _put_value(self, content: bytes) -> bytes:
        """A JSON value or name in the place of another one."""
        places = [match.span() for match in VALUE.finditer(content)]
        if not places:
            return self._put_token(content)
        begin, end = self._chance.choice(places)
        return content[:begin] + self._chance.choice(self._values) + content[end:]


_WAYS = (
    Mutations._flip, Mutations._cut, Mutations._repeat, Mutations._splice, Mutations._lines, Mutations._put_token,
    *[Mutations._put_value] * 6,
)  # fmt: skip


def _is_json(token: bytes) -> bool:
    try:
        json.loads(token)
    except ValueError:
        return False
    return True
