"""Prompts: their token ids, and the decoder state from which a text is continued, also inside a word."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.data.tokenizers.base import EOS_ID, Tokenizer
from engine.data.tokenizers.bytes import ByteTokenizer
from engine.errors import PromptError
from engine.models.base import EXCLUDED_LOG_PROB, LanguageModel, LogProbs, ModelState, advance_tokens

MAX_QUOTED_CHARACTERS = 40
MAX_REREAD_TOKENS = 64  # at the end of a prompt, which the next token may repeat


@dataclass(frozen=True)
class EncodedPrompt:
    text: str
    ids: tuple[int, ...]
    unknown_tokens: tuple[str, ...]  # distinct parts of the text that the model does not know, in text order


class DecoderState(NamedTuple):
    """State after a text. A kept state is a branch point, since states are immutable."""

    log_probs: LogProbs  # of the next token
    model_state: ModelState
    num_reread_tokens: int = 0  # at the end of a prompt, not in the state: the next token begins with their characters
    num_reread_characters: int = 0


def encode_prompt(text: str, tokenizer: Tokenizer) -> EncodedPrompt:
    """Encode a prompt with the model's tokenizer. A prompt without a word that the model knows raises a PromptError."""
    if not text.strip():
        raise PromptError("the prompt is empty and has no word; type something first")
    unknown = tuple(dict.fromkeys(part for _, _, part in tokenizer.unknown_spans(text)))
    ids = tokenizer.encode(text)
    if not len(ids) and unknown:
        use = "type words of the letters a to z, digits and apostrophes"
        raise PromptError(f"the model cannot read {list_shortened(unknown, 5)}; {use}")
    if not len(ids):
        raise PromptError(f"prompt {list_shortened([text], 1)!r} has no word; type at least one")
    if tokenizer.unk_id is not None and (ids == tokenizer.unk_id).all():
        raise PromptError(f"the model knows none of the prompt's words: {list_shortened(unknown, 5)}; use other words")
    return EncodedPrompt(text, tuple(ids.tolist()), unknown)


def list_shortened(words: Sequence[str], max_words: int) -> str:
    parts = [word if len(word) <= MAX_QUOTED_CHARACTERS else f"{word[:MAX_QUOTED_CHARACTERS]}…" for word in words]
    others = [f"and {len(words) - max_words:,} more"] if len(words) > max_words else []
    return ", ".join([*parts[:max_words], *others])


def prefill(model: LanguageModel, ids: Sequence[int], initial_state: DecoderState | None = None) -> DecoderState:
    """Read `ids`, from `initial_state` or from the start of a text (after `<eos>`), and return the state after them."""
    if initial_state is None:
        return DecoderState(*advance_tokens(model, model.start(), [EOS_ID, *ids]))
    return DecoderState(*advance_tokens(model, initial_state.model_state, ids)) if len(ids) else initial_state


def prefill_prompt(model: LanguageModel, ids: Sequence[int], initial_state: DecoderState | None = None) -> DecoderState:
    """Read a prompt, and return the state to continue it from: see `reopen_last_word`."""
    first = last_word_start(model.tokenizer, ids)
    states = [prefill(model, ids[:first], initial_state)]
    for token in ids[first:]:
        states.append(prefill(model, [token], states[-1]))
    return reopen_last_word(model.tokenizer, ids[first:], states)


def last_word_start(tokenizer: Tokenizer, ids: Sequence[int]) -> int:
    """Return the index of the first token of the last word of a prompt, which the next token may repeat."""
    if not isinstance(tokenizer, ByteTokenizer) or not ids or ids[-1] == EOS_ID:
        return len(ids)  # a closed vocabulary has only whole words
    first = len(ids) - 1
    while first > max(0, len(ids) - MAX_REREAD_TOKENS) and not tokenizer.word_starts[ids[first]]:
        first -= 1
    return first


def reopen_last_word(tokenizer: Tokenizer, ids: Sequence[int], states: Sequence[DecoderState]) -> DecoderState:
    """Return the state from which to continue a prompt: after all tokens, or before the last ones of an open word.

    A model has hardly seen the tokens of "the wiz", because it writes "wizard" in another way. So the last ones may be
    left to the next token, which then begins with their characters. The end is chosen that is most probable with all
    its continuations. `states` `[len(ids) + 1]` are the states before each token of `ids` and after the last.
    """
    if not isinstance(tokenizer, ByteTokenizer):
        return states[-1]
    best, best_log_prob, log_prob = states[-1], -math.inf, 0.0
    for index in range(last_word_start(tokenizer, ids), len(ids)):
        rest = b"".join(tokenizer.token_bytes[id] for id in ids[index:])
        longer = tokenizer.ids_with_prefix(rest)
        total = float(np.logaddexp.reduce(states[index].log_probs[longer], dtype=np.float64, initial=-np.inf))
        if log_prob + total > best_log_prob:
            best_log_prob = log_prob + total
            log_probs = np.full_like(states[index].log_probs, EXCLUDED_LOG_PROB)
            log_probs[longer] = states[index].log_probs[longer] - total
            num_characters = len(rest.decode(errors="replace"))
            best = DecoderState(log_probs, states[index].model_state, len(ids) - index, num_characters)
        log_prob += float(states[index].log_probs[ids[index]])
    return best if best_log_prob > log_prob else states[-1]
