"""What is measured: the session as it is, one whose models never end a text, and a bare Textual app beside them."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lotr_tui.bench.terminal import Terminal

PROMPT = "Bilbo Baggins is"
TYPEABLE = "type a prompt"
"""Shown when the session can be typed into: at its first paint."""
READY = "This is"
"""Shown when its model is there too: the welcome begins with it."""
BARE_APP = """
from textual.app import App
from textual.widgets import Footer, Header, Input, Static
class Bare(App):
    def compose(self):
        yield Header(); yield Static("hello"); yield Input(); yield Footer()
Bare().run()
"""
BARE_COMMAND = [sys.executable, "-c", BARE_APP]
BARE_READY = "palette"
"""Shown last by the bare app."""
SESSION_COMMAND = [sys.executable, "-m", "lotr_tui"]
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
"""What keeps numpy's products on one core."""


def endless_command(words: int, pace: float, *, training: bool = False) -> list[str]:
    """A session that writes so many words behind each prompt, at `pace` words a second (0: as they come)."""
    command = [sys.executable, "-m", "lotr_tui.bench.subjects", str(words), str(pace)]
    return [*command, "training"] if training else command


@contextmanager
def running(
    command: list[str], width: int, height: int, ready: str = READY, home: Path | None = None
) -> Iterator[Terminal]:
    """A program in a terminal, when `ready` is shown and nothing more comes.

    `home` is where it keeps things (None: an empty folder that is deleted afterwards).
    """
    with (
        tempfile.TemporaryDirectory() as folder,
        Terminal(command, width, height, home or Path(folder)).opened() as terminal,
    ):
        terminal.until(ready)
        terminal.settle(0.5, 3)
        yield terminal


def never_end() -> None:
    """Make every model of this process go on for ever: the end of a text has no probability."""
    from engine.data.vocabulary import EOS_ID
    from engine.models.base import LogProbs
    from engine.models.numpy_lstm import Decoder, LSTMState

    plain_advance = Decoder.advance

    def endless_advance(self: Decoder, state: LSTMState, token: int) -> tuple[LogProbs, LSTMState]:
        log_probs, state = plain_advance(self, state, token)
        log_probs[EOS_ID] = -1e4  # so that the entropy stays a number
        return log_probs, state

    Decoder.advance = endless_advance  # type: ignore[method-assign]


def _session(words: int, pace: float, *, training: bool) -> None:
    """The session as it is, with models that never end a text; a training goes on in it, if asked."""
    from textual.widgets import Input

    from engine.config import preset
    from lotr_tui.app import LotrApp
    from lotr_tui.screens.session.screen import PlayScreen
    from lotr_tui.session.player import open_player

    class Session(LotrApp):
        def on_ready(self) -> None:
            self.screen.query_one("#max_tokens Input", Input).value = str(words)
            if training:
                assert isinstance(self.screen, PlayScreen)
                self.screen.begin_training(preset("tiny").with_values(epochs=500))

    never_end()
    Session(player=open_player([], None), pace=pace).run()


if __name__ == "__main__":
    _session(int(sys.argv[1]), float(sys.argv[2]), training="training" in sys.argv[3:])
