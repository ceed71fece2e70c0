"""Completion of the last word of a prompt: with a word of a closed vocabulary, or token by token in an open one."""

from bisect import bisect_left
from collections.abc import Callable, Sequence

import numpy as np

from engine.data.scripts import encode_speaker
from engine.data.speakers import STRANGER
from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.data.tokenizers.bytes import ByteTokenizer, is_word_character
from engine.generation.prompt import DecoderState, prefill
from engine.generation.sampling import TextInProgress
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from lotr_tui.session.conversation.generation import to_prompt_line
from lotr_tui.session.conversation.read_text import UnreadText
from lotr_tui.session.model_abilities import find_cast
from lotr_tui.session.text_reader import TextReader

MIN_LETTERS = 2
"""Minimum length of a word that is completed: after one letter too many words are possible."""
MAX_TOKENS = 24
"""Maximum number of tokens that complete a word in an open vocabulary."""


class WordCompleter:
    """Completer of the last word of a prompt, which keeps what the model has read.

    In a closed vocabulary it takes the most probable word. In an open vocabulary it appends the most probable token
    until a token starts another word.
    """

    def __init__(self) -> None:
        self._reader = TextReader()
        self._tokenizer: Tokenizer | None = None
        self._sorted_tokens: list[tuple[str, int]] = []
        """The words of `_tokenizer` with their ids, in alphabetical order."""

    def complete(self, model: LanguageModel, text: str, cancelled: Callable[[], bool] = lambda: False) -> str:
        """Return the rest of the last word of `text`; "" if it is complete, unknown or too short, or if cancelled.

        This takes long with a slow model, so use a thread.
        """
        tokenizer = model.tokenizer
        if isinstance(tokenizer, ByteTokenizer):
            return self._complete_by_tokens(model, tokenizer, text, cancelled)
        *before, (_, end, word) = [
            (0, -1, ""),
            *((start, end, text[start:end].lower()) for start, end, _ in tokenizer.spans(text)),
        ]
        if end != len(text) or len(word) < MIN_LETTERS:
            return ""
        if tokenizer is not self._tokenizer:
            self._tokenizer = tokenizer
            self._sorted_tokens = sorted((token, id) for id, token in enumerate(tokenizer.tokens) if id > EOS_ID)
        start = bisect_left(self._sorted_tokens, (word,))
        stop = bisect_left(self._sorted_tokens, (word + chr(0x10FFFF),))
        ids = [id for _, id in self._sorted_tokens[start:stop]]
        if not ids:
            return ""
        ids_before = tokenizer.encode(text[: before[-1][1]] if len(before) > 1 else "").tolist()
        state = self._reader.read(UnreadText(model, ids_before), cancelled)
        if state is None:
            return ""
        completed = tokenizer.tokens[ids[int(np.argmax(state.log_probs[ids]))]]
        stem = completed.partition("'")[0]  # "bilbo" for "bilbo's": the rest is soon typed, but not soon deleted
        return (stem if stem in tokenizer and len(stem) >= len(word) else completed)[len(word) :]

    def _complete_by_tokens(
        self, model: LanguageModel, tokenizer: ByteTokenizer, text: str, cancelled: Callable[[], bool]
    ) -> str:
        if not ends_inside_word(text):
            return ""
        line = to_prompt_line(text)
        head, line = (encode_speaker(tokenizer, STRANGER), f" {line}") if find_cast(model) else ((), line)
        ids = [*head, *tokenizer.encode(line).tolist()]
        state = self._reader.read(UnreadText(model, ids, reopens_last_word=True), cancelled)
        return "" if state is None else _greedy_rest(model, tokenizer, ids, state, cancelled)


def ends_inside_word(text: str) -> bool:
    """Return True if a text ends in at least `MIN_LETTERS` letters, so that its last word can be completed."""
    return all(map(is_word_character, text[-MIN_LETTERS:].rjust(MIN_LETTERS)))


def _greedy_rest(
    model: LanguageModel,
    tokenizer: ByteTokenizer,
    ids: Sequence[int],
    state: DecoderState,
    cancelled: Callable[[], bool],
) -> str:
    """Return the likeliest rest of the last word of a text, from the `state` to continue it."""
    decoder = TextInProgress(model, ids, SamplerSettings(), state=state).piece_decoder
    num_typed = state.num_reread_characters
    rest = ""
    for _ in range(MAX_TOKENS):
        if cancelled():
            return ""
        id = int(np.argmax(state.log_probs))
        piece = decoder.decode(id)[num_typed:]
        if num_typed == 0 and (tokenizer.word_starts[id] or piece[:1] in ("'", "’")):
            return rest
        rest += piece
        num_typed = 0
        state = prefill(model, [id], state)
    return ""
