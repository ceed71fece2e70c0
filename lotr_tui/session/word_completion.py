"""Completion of the last word of a prompt with a word of the model's vocabulary."""

from bisect import bisect_left

import numpy as np

from engine.data.vocabulary import EOS_ID, Vocabulary
from engine.models.base import LanguageModel
from lotr_tui.session.next_tokens import NextTokenPreview

MIN_LETTERS = 2
"""Minimum length of a word that is completed: after one letter too many words are possible."""


class WordCompleter:
    """Completer that takes the most probable word, or where the preview has no probabilities the corpus's first one."""

    def __init__(self, preview: NextTokenPreview) -> None:
        self._preview = preview
        self._vocabulary: Vocabulary | None = None
        self._sorted_tokens: list[tuple[str, int]] = []
        """The words of `_vocabulary` with their ids, in alphabetical order."""

    def complete(self, model: LanguageModel, text: str) -> str:
        """Return the rest of the last word of `text`; "" if the word is complete, unknown or too short."""
        vocabulary = model.vocabulary
        *before, (_, end, word) = [(0, -1, ""), *vocabulary.token_spans(text)]
        if end != len(text) or len(word) < MIN_LETTERS:
            return ""
        if vocabulary is not self._vocabulary:
            self._vocabulary = vocabulary
            self._sorted_tokens = sorted((token, id) for id, token in enumerate(vocabulary.tokens) if id > EOS_ID)
        start = bisect_left(self._sorted_tokens, (word,))
        stop = bisect_left(self._sorted_tokens, (word + chr(0x10FFFF),))
        ids = [id for _, id in self._sorted_tokens[start:stop]]
        if not ids:
            return ""
        ids_before = vocabulary.encode([token for _, _, token in before[1:]]).tolist()
        log_probs = self._preview.log_probs_in_draft(model, ids_before)
        best = min(ids) if log_probs is None else ids[int(np.argmax(log_probs[ids]))]
        completed = vocabulary.tokens[best]
        stem = completed.partition("'")[0]  # "bilbo" for "bilbo's": the rest is soon typed, but not soon deleted
        return (stem if stem in vocabulary and len(stem) >= len(word) else completed)[len(word) :]
