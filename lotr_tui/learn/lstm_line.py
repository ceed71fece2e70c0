"""Steps of an LSTM along a typed line, and its predictions with and without a reset of its state."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.analysis.activations import LSTMStep, read_steps
from engine.analysis.tokenized_text import tokenize_with_offsets
from engine.data.arrays import Int32Array
from engine.data.tokenizers.base import EOS, EOS_ID, UNK, Tokenizer
from engine.models.base import LogProbs
from engine.models.numpy_lstm import NumpyLSTM
from lotr_tui.formatting import format_lone_token


@dataclass(frozen=True)
class LineReading:
    """Steps of an LSTM along a line: `<eos>`, in a dialogue model the speaker's name, and the tokens of the line."""

    names: tuple[str, ...]
    """Names `[steps]` of the tokens for display."""
    starts: Int32Array
    """Index `[steps]` of the first character of each token in the line; -1 for tokens that are not in it."""
    ends: Int32Array
    """Index `[steps]` after the last character of each token."""
    steps: tuple[LSTMStep, ...]
    reset_steps: tuple[LSTMStep, ...]
    """Steps along the last word from a state of zeros; empty for an empty line."""
    last_word: str

    def steps_with(self, *, is_reset: bool) -> tuple[LSTMStep, ...]:
        """Return all steps; the steps of the last word start from the kept state, or from a reset one."""
        return (*self.steps[: self.num_forgotten], *self.reset_steps) if is_reset else self.steps

    @property
    def num_forgotten(self) -> int:
        """Number of steps before the last word, which a reset makes the LSTM forget."""
        return len(self.steps) - len(self.reset_steps)

    def step_at(self, cursor: int) -> int:
        """Return the step of the token before a cursor, which is a number of characters."""
        return max(0, int(np.searchsorted(self.starts, cursor, side="left")) - 1)


def read_line(
    lstm: NumpyLSTM, text: str, before: LineReading | None = None, *, cast: Sequence[str] = ()
) -> LineReading:
    """Read a line, reusing the steps of the line before where both start with the same tokens.

    The LSTM of a dialogue model with a `cast` reads the line of a script.
    """
    tokenizer = lstm.tokenizer
    tokens = tokenize_with_offsets(text, tokenizer, cast=cast)
    read_ids, positions = tokens.read_ids()
    ids, steps = [EOS_ID, *read_ids], np.array(positions, np.int64) + 1
    label = tokens.label_spans[0].tolist() if len(tokens.label_spans) else (-1, 0)
    starts, ends = (np.full(len(ids), place, np.int32) for place in label)
    starts[0], ends[0] = -1, 0
    starts[steps], ends[steps] = tokens.start_offsets, tokens.end_offsets
    num_words = tokens.num_words
    last = ids[len(ids) - (len(tokens) - int(tokens.word_starts[-1])) :] if num_words else []
    return LineReading(
        tuple(token_name(tokenizer, id) for id in ids),
        starts,
        ends,
        read_steps(lstm, ids, before.steps if before else ()),
        read_steps(lstm, last, before.reset_steps if before else ()),
        tokens.word(num_words - 1) if num_words else "",
    )


def agrees_after_reset(lstm: NumpyLSTM, text: str) -> bool:
    """Return True if the likeliest token after a line is the same with the state reset before the last word."""
    reading = read_line(lstm, text)
    kept, reset = predict_next(lstm, reading.steps), predict_next(lstm, reading.reset_steps)
    return bool(kept.argmax() == reset.argmax())


def predict_next(lstm: NumpyLSTM, steps: Sequence[LSTMStep]) -> LogProbs:
    """Return the distribution `[vocabulary]` of the token after some steps."""
    log_probs, _ = lstm.advance(steps[-1].before, steps[-1].token)
    return log_probs


def token_name(tokenizer: Tokenizer, id: int) -> str:
    """Return the name of a token that the LSTM reads."""
    special = {EOS_ID: EOS, tokenizer.unk_id: UNK}
    return special.get(id) or format_lone_token(tokenizer.tokens[id].rstrip(" ") or tokenizer.tokens[id])
