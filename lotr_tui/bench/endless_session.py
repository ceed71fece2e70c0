"""A session whose texts do not end by themselves.

Start it by `python -m lotr_tui.bench.endless_session MAX_TOKENS PACE [training]`; see `endless_session_command`.
"""

import sys

from textual.widgets import Input

from engine.data.tokenizers.base import EOS_ID
from engine.models.base import LogProbs
from engine.models.numpy_lstm import LSTMState, NumpyLSTM
from engine.presets import get_preset
from lotr_tui.app import LotrApp
from lotr_tui.screens.session.screen import SessionScreen
from lotr_tui.session.session_model import load_session_model

TRAINING_EPOCHS = 500
"""Epochs of the training in the session, more than any measurement waits for."""


class EndlessSession(LotrApp):
    """The app with a given maximum length of texts and, optionally, a training."""

    def __init__(self, max_tokens: int, pace: float, *, training: bool) -> None:
        """Open a session with the bundled model; see `endless_session_command` for the arguments."""
        super().__init__(session_model=load_session_model([], None), pace=pace)
        self._max_tokens = max_tokens
        self._has_training = training

    def on_ready(self) -> None:
        """Set the maximum length, and start the training."""
        self.screen.query_one("#max_tokens Input", Input).value = str(self._max_tokens)
        if self._has_training:
            assert isinstance(self.screen, SessionScreen)
            self.screen.start_training(get_preset("tiny").with_values(epochs=TRAINING_EPOCHS))


def disable_eos() -> None:
    """Make the end of a text improbable for every LSTM of this process."""
    original_advance = NumpyLSTM.advance

    def endless_advance(self: NumpyLSTM, state: LSTMState, token: int) -> tuple[LogProbs, LSTMState]:
        log_probs, state = original_advance(self, state, token)
        log_probs[EOS_ID] = -1e4  # finite, so that the entropy is a number
        return log_probs, state

    NumpyLSTM.advance = endless_advance  # type: ignore[method-assign]


if __name__ == "__main__":
    disable_eos()
    EndlessSession(int(sys.argv[1]), float(sys.argv[2]), training="training" in sys.argv[3:]).run()
