"""The most likely continuation of a typed line by one model."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from engine.generation.generate import Done, generate
from engine.generation.prompt import prefill_prompt
from engine.generation.sampling import TextInProgress, top_tokens
from engine.generation.settings import SamplerSettings
from engine.models.base import LanguageModel
from lotr_tui.formatting import LINE_END_MARK, displayable, format_lone_token
from lotr_tui.learn.continuation import encode_line
from lotr_tui.session.session_model import reads_line_ends

NUM_NEXT_TOKENS = 5


@dataclass(frozen=True)
class LineContinuation:
    """Continuation of a line by a model, and its most likely next tokens."""

    text: str
    """The most likely token each time, on one line; `¶` is the end of a line."""
    next_tokens: tuple[tuple[str, float], ...]
    """The most likely next tokens as they are displayed, with their probabilities."""


def continue_line(
    model: LanguageModel, line: str, max_tokens: int, cancelled: Callable[[], bool] = lambda: False
) -> LineContinuation:
    """Continue a line with the most likely token each time, up to the end of the line; see `encode_line`.

    Args:
        model: The model.
        line: Text without line ends; it may be empty, or end inside a word.
        max_tokens: Maximum number of tokens of the continuation.
        cancelled: Returns True to end the text early; called before each token.
    """
    tokenizer = model.tokenizer
    ids = encode_line(model, line)
    state = prefill_prompt(model, ids)
    top_ids, top_log_probs = top_tokens(state.log_probs[None], NUM_NEXT_TOKENS)
    next_tokens = tuple(
        (format_lone_token(tokenizer.tokens[id], ends_text=reads_line_ends(model)), math.exp(log_prob))
        for id, log_prob in zip(top_ids[0].tolist(), top_log_probs[0].tolist(), strict=True)
    )
    settings = SamplerSettings(temperature=0, max_tokens=max_tokens)
    pieces: list[str] = []
    for event in generate(TextInProgress(model, ids, settings, state=state, is_first_token=False), cancelled):
        if isinstance(event, Done):
            pieces.append(f" {LINE_END_MARK}" if event.reason == "eos" else "")
            break
        pieces.append(event.piece)
        if "\n" in event.piece:
            break
    text = displayable("".join(pieces)).replace("\n", f" {LINE_END_MARK}")
    return LineContinuation(" ".join(text.split()), next_tokens)
