"""What may come next in a session: behind the prompt being typed, or else behind the last words."""

from collections.abc import Sequence

from engine.data.vocabulary import EOS_ID
from engine.generation.generate import Reading
from engine.generation.preview import NextWords, preview
from engine.generation.settings import SamplerSettings
from lotr_tui.session.conversation import Conversation, Reply
from lotr_tui.session.player import Player, Reader
from lotr_tui.session.settings import Way

CANDIDATES = 40
"""Bars computed; as many are shown as there is room for."""


class WhatIsNext:
    """Looks on from what was read and kept; of a prompt that grows, only new words are read."""

    def __init__(self, player: Player) -> None:
        self._reader = Reader(player.model)

    def look(
        self,
        player: Player,
        conversation: Conversation,
        typed: str,
        way: Way,
        after: Reply | None,
        settings: SamplerSettings,
    ) -> tuple[NextWords, str]:
        """What may come, and the word it comes after. `typed` would be said behind the reply `after`."""
        model = player.model
        words = model.vocabulary.tokenize(typed)
        last = conversation.last
        start: Reading | None = None
        unread: Sequence[int] = ()
        ids: Sequence[int] = ()
        first = True
        if words:
            line = model.vocabulary.encode(words).tolist()
            start, unread, ids = conversation.lead(player, line, way, after)
        elif last is not None and last.player.model.vocabulary == model.vocabulary:
            unread = ids = last.ids()
            first = not last.words
            if last.player.model is model and (start := last.reading(len(last.words))) is not None:
                unread = ()
        if start is not self._reader.start or model is not self._reader.model:
            self._reader = Reader(model, start)
        history = [id for id in ids if id != EOS_ID]
        next_words = preview(self._reader.after(unread), settings, history, model.vocabulary, CANDIDATES, first=first)
        return next_words, model.vocabulary.words[ids[-1]] if ids else ""
