"""What a conversation keeps in memory beside its words: readings to branch from, and the models that spoke."""

from collections import deque
from collections.abc import Iterable
from dataclasses import is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from lotr_tui.session.conversation import Reply
    from lotr_tui.session.player import Player

MOST_BYTES = 32_000_000
"""Of readings: some thousands of words. Where the oldest were let go, the text is read again."""
MOST_MODELS = 3
"""Of one training: it makes another one with every evaluation, for hours, and each takes megabytes."""


class KeptReadings:
    """The places to branch from, the oldest let go where they take too much."""

    def __init__(self) -> None:
        self._places: deque[tuple[Reply, int, int]] = deque()
        self._bytes = 0

    def add(self, reply: "Reply", reading: Any) -> None:
        """Keep one more of a reply, behind those it has."""
        size = _bytes(reading)
        self._places.append((reply, len(reply.readings), size))
        self._bytes += size
        reply.readings.append(reading)
        while self._bytes > MOST_BYTES and len(self._places) > 1:
            oldest, at, size = self._places.popleft()
            self._bytes -= size
            if at < len(oldest.readings):
                oldest.readings[at] = None


def let_models_go(replies: Iterable["Reply"]) -> None:
    """Keep the latest models of each training: what earlier ones have said is read by the latest from now on."""
    latest: dict[str, list[Player]] = {}
    for reply in reversed(list(replies)):
        players = latest.setdefault(reply.player.name, [])
        if any(reply.player.model is player.model for player in players):
            continue
        if len(players) < MOST_MODELS:
            players.append(reply.player)
        elif reply.player.model.vocabulary == players[0].model.vocabulary:
            reply.player = players[0]
            reply.readings.clear()


def _bytes(value: Any) -> int:
    """Of all arrays in it."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, (tuple, list)):
        return sum(map(_bytes, value))
    return sum(map(_bytes, vars(value).values())) if is_dataclass(value) else 0
