"""End of a text that is too long for an attention record."""

from collections.abc import Callable

import numpy as np

from engine.analysis.tokenized_text import TokenizedText


def num_read(tokens: TokenizedText) -> int:
    """Return how many tokens the model reads for a text, the tokens of speakers included."""
    return len(tokens) + int(np.count_nonzero(tokens.line_speakers >= 0))


def keep_last_tokens(tokens: TokenizedText, max_tokens: int, tokenize: Callable[[str], TokenizedText]) -> TokenizedText:
    """Return the end of a text that has at most `max_tokens` tokens, speakers included.

    The end begins with a line of a script, or else with a word, if such an end has a token.
    """
    while num_read(tokens) > max_tokens and len(tokens) > 1:
        tokens = tokenize(tokens.text[_find_start(tokens, max_tokens) :])
    return tokens


def _find_start(tokens: TokenizedText, max_tokens: int) -> int:
    """Return the index of the first character to keep, so that at least one token is dropped."""
    reads = np.ones(len(tokens), np.int64)  # for each token: itself and the speaker before it
    if tokens.has_speakers:
        reads += tokens.line_speakers >= 0
    num_read_from = np.cumsum(reads[::-1])[::-1]
    first = min(max(1, int(np.count_nonzero(num_read_from > max_tokens))), len(tokens) - 1)
    lines = np.flatnonzero(tokens.line_speakers >= 0)
    if len(lines := lines[lines >= first]):
        return tokens.text.rfind("\n", 0, int(tokens.start_offsets[lines[0]])) + 1
    word = int(np.searchsorted(tokens.word_starts, first))
    return int(tokens.word_spans[0][word] if word < tokens.num_words else tokens.start_offsets[first])
