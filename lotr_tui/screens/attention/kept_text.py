"""End of a text that is too long for an attention record."""

from collections.abc import Callable

import numpy as np

from engine.analysis.tokenized_text import TokenizedText


def num_read(tokens: TokenizedText) -> int:
    """Return how many tokens the model reads for a text, with the speakers' names."""
    return len(tokens) + sum(map(len, tokens.heads.values()))


def keep_last_tokens(tokens: TokenizedText, max_tokens: int, tokenize: Callable[[str], TokenizedText]) -> TokenizedText:
    """Return the end of a text that has at most `max_tokens` tokens, names of speakers included.

    The end begins with a line of a script, or else with a word, if such an end has a token.
    """
    while num_read(tokens) > max_tokens and len(tokens) > 1:
        tokens = tokenize(tokens.text[_find_start(tokens, max_tokens) :])
    return tokens


def _find_start(tokens: TokenizedText, max_tokens: int) -> int:
    """Return the index of the first character to keep, so that at least one token is dropped."""
    reads = np.ones(len(tokens), np.int64)  # for each token: itself and the name before it
    for index, head in tokens.heads.items():
        reads[index] += len(head)
    num_read_from = np.cumsum(reads[::-1])[::-1]
    first = min(max(1, int(np.count_nonzero(num_read_from > max_tokens))), len(tokens) - 1)
    if lines := [start for start in tokens.speakers if start >= first]:
        return tokens.text.rfind("\n", 0, int(tokens.start_offsets[min(lines)])) + 1
    word = int(np.searchsorted(tokens.word_starts, first))
    return int(tokens.word_spans[0][word] if word < tokens.num_words else tokens.start_offsets[first])
