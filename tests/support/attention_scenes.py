"""Scenes for snapshots of the attention screen."""

from textual.pilot import Pilot

from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import LENS_TEXT
from tests.support.app import VOCABULARY
from tests.support.attention import attention_session_model, open_attention
from tests.support.open_models import LINES, bpe_tokenizer


def _words_model() -> SessionModel:
    return attention_session_model(VOCABULARY, num_layers=12, num_heads=9)


async def attention(pilot: Pilot[None]) -> None:
    """The heads of the last layer on a word, with one head pinned."""
    await open_attention(pilot, _words_model(), LENS_TEXT)
    await pilot.press("down", "down", "down", "f3", "comma", "comma")
    await pilot.pause(0.3)


async def attended_words(pilot: Pilot[None]) -> None:
    """The words that a head looks at most, without the start, which replace the heads on a small terminal."""
    await attention(pilot)
    await pilot.press("f4", "f5")
    await pilot.pause(0.1)


async def head_along_text(pilot: Pilot[None]) -> None:
    """What the pinned head looks at on each word, which replaces the words that it looks at most."""
    await attention(pilot)
    await pilot.press("f5", "f5")
    await pilot.pause(0.1)


async def logit_lens(pilot: Pilot[None]) -> None:
    """What each layer predicts, which replaces the other lists on a small terminal."""
    await attention(pilot)
    await pilot.press("f5", "f5", "f5", "up")
    await pilot.pause(0.1)


async def open_vocabulary_attention(pilot: Pilot[None]) -> None:
    """The heads of a model with more tokens than columns."""
    await open_attention(pilot, attention_session_model(bpe_tokenizer(), num_layers=12, num_heads=9), "\n".join(LINES))
    await pilot.press("down", "m")
    await pilot.pause(0.3)
