"""Scenes for snapshots of the session and of columns with models of open vocabularies."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual.pilot import Pilot
from textual.screen import Screen

from engine.data.tokenizers.base import Tokenizer
from engine.generation.settings import SamplerSettings
from lotr_tui.screens.activations.screen import ActivationsScreen
from lotr_tui.screens.comparison.ladder import LadderScreen
from lotr_tui.screens.comparison.side_by_side import SideBySideScreen
from lotr_tui.screens.lens.screen import LensScreen
from lotr_tui.screens.lens.text_view import LensTextView
from lotr_tui.screens.memorization.screen import MemorizationScreen
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.session.column_output import ColumnOutput, ColumnSlot
from lotr_tui.session.saved_session import SavedReply
from lotr_tui.session.session_file import SessionWriter
from lotr_tui.session.session_model import SessionModel
from tests.support.analysis import is_idle
from tests.support.columns import until_columns_ended
from tests.support.open_models import LINES, RecitingModel, bpe_tokenizer, character_tokenizer, open_model
from tests.support.pilot import until
from tests.support.scenes import Scene
from tests.support.sessions import saved_reply, saved_token

TIME = 1_600_000_000
LINE = "The wizard’s staff is old; Éowyn smiled, and Théoden wept… “Where is the Ring?” 日本"
OTHER_LINE = "The wizard’s staff is old; Éowyn asked for bread."


def save_open_session(tokenizer: Tokenizer) -> Path:
    """Write a session with two branches after a prompt that ends inside a word, and return its file."""
    writer = SessionWriter("open")
    writer.session = replace(writer.session, started=TIME)
    first = _reply(tokenizer, "The wiz", LINE)
    other = _reply(tokenizer, "The wiz", OTHER_LINE)
    pairs = zip(first.tokens, other.tokens, strict=False)
    num_shared = next(index for index, (one, two) in enumerate(pairs) if one != two)
    writer.save(first)
    writer.save(
        replace(other, id=1, parent_id=0, parent_offset=num_shared, prompt=None, tokens=other.tokens[num_shared:])
    )
    writer.close()
    path: Path = writer._folder / f"{writer.session.name}.jsonl"
    os.utime(path, (TIME, TIME))
    return path


def _reply(tokenizer: Tokenizer, prompt: str, line: str) -> SavedReply:
    """Return a reply that continues `prompt` to `line`."""
    prompt_ids, line_ids = tokenizer.encode(prompt).tolist(), tokenizer.encode(line).tolist()
    num_read = next(index for index, id in enumerate(line_ids) if prompt_ids[index : index + 1] != [id])
    pieces = tokenizer.pieces(line_ids)[num_read:]
    pieces[0] = pieces[0].removeprefix(tokenizer.decode(prompt_ids[num_read:]))
    tokens = [
        saved_token(tokenizer.tokens[id], id, piece) for id, piece in zip(line_ids[num_read:], pieces, strict=True)
    ]
    return replace(
        saved_reply(prompt=prompt, reason="eos", tokens_per_second=14_200.0),
        tokens=tuple(tokens),
        tokenizer=tokenizer.name,
        num_reread_tokens=len(prompt_ids) - num_read,
    )


async def _open_session(pilot: Pilot[None], tokenizer: Tokenizer, *keys: str) -> None:
    app: Any = pilot.app
    await until(pilot, lambda: app.screen.query("#training"))
    session_model = SessionModel("open", "LSTM, 1 layer of 12 · valid 74.9", open_model(tokenizer))
    app.screen.set_session_model(session_model)
    assert app.screen.query_one(ConversationView).open_session(save_open_session(tokenizer), session_model)
    await pilot.pause()
    await pilot.press(*keys)
    await until(pilot, lambda: not app.screen._next_words._task.is_running)
    await pilot.pause()


async def byte_pairs(pilot: Pilot[None]) -> None:
    """A comparison of two branches of a bpe model, which begin inside a word of the prompt."""
    await _open_session(pilot, bpe_tokenizer(), "ctrl+g", "home", "right", "right", "c")


async def characters(pilot: Pilot[None]) -> None:
    """The cursor on a byte of a character of several tokens."""
    await _open_session(pilot, character_tokenizer(), "ctrl+g", "left_square_bracket", "end", "left")


async def open_ladder(pilot: Pilot[None]) -> None:
    """The same prompt at five temperatures, for a bpe model."""
    session_model = SessionModel("open", "LSTM, 1 layer of 12", open_model(bpe_tokenizer()))
    screen = LadderScreen(session_model, "Where is the wiz", SamplerSettings(top_k=20), 3, 0)
    await pilot.app.push_screen(screen)
    await until_columns_ended(pilot, screen)


async def open_side_by_side(pilot: Pilot[None]) -> None:
    """A bpe model beside a model of characters."""
    app: Any = pilot.app
    models = [RecitingModel(bpe_tokenizer(), LINE), RecitingModel(character_tokenizer(), OTHER_LINE)]
    settings = SamplerSettings(max_tokens=100)
    screen = SideBySideScreen(SessionModel("byte pairs", "", models[0]), app.runs_dir, "The wiz", settings, 3, 0)
    await app.push_screen(screen)
    screen.slots.append(ColumnSlot(ColumnOutput("characters"), models[1], 0.8))
    screen.show_slots()
    screen.generate_empty_columns()
    await until_columns_ended(pilot, screen)


INSPECTED_TEXT = f"{LINES[0]}\n{OTHER_LINE}\n{LINES[4]} 日本"


def _model_of_run(app: Any, tokenizer: Tokenizer) -> SessionModel:
    return SessionModel("open", "LSTM, 1 layer of 12 · valid 74.9", open_model(tokenizer), run=app.runs_dir)


async def _open_inspector(pilot: Pilot[None], screen: Screen[None]) -> None:
    await pilot.app.push_screen(screen)
    await until(pilot, lambda: is_idle(pilot.app))
    await pilot.pause(0.1)


async def open_lens(pilot: Pilot[None]) -> None:
    """The cursor of the lens on a word of several tokens, for a bpe model."""
    app: Any = pilot.app
    await _open_inspector(pilot, LensScreen(_model_of_run(app, bpe_tokenizer()), INSPECTED_TEXT))
    text = app.screen.query_one(LensTextView)
    text.focus()
    text.move_cursor(INSPECTED_TEXT.split().index("Éowyn") + 4)  # commas and line ends are words, too
    await pilot.pause(0.1)


async def open_memorization(pilot: Pilot[None]) -> None:
    """Copied passages in the text of a model of characters."""
    app: Any = pilot.app
    await _open_inspector(pilot, MemorizationScreen(_model_of_run(app, character_tokenizer()), INSPECTED_TEXT))


async def open_activations(pilot: Pilot[None]) -> None:
    """The gates of a bpe model on a token that is a part of a word."""
    app: Any = pilot.app
    await _open_inspector(pilot, ActivationsScreen(_model_of_run(app, bpe_tokenizer()), INSPECTED_TEXT))
    await pilot.press("f3", *["comma"] * 12)
    await pilot.pause(0.1)


async def open_top_activations(pilot: Pilot[None]) -> None:
    """The tokens of the training text on which a unit of the bpe model is highest and lowest."""
    await open_activations(pilot)
    await pilot.press("f4")
    await until(pilot, lambda: is_idle(pilot.app))
    await pilot.pause(0.1)


async def tokens_of_bars(pilot: Pilot[None]) -> None:
    """The bars of a bpe model as tokens, after a prompt that ends inside a word."""
    await _open_session(pilot, bpe_tokenizer(), *"Where is the wi", "ctrl+right_square_bracket")
    if pilot.app.size.width < 120:
        await pilot.press("f2")
        await pilot.pause()


TRAINING_TOKENIZERS: dict[Scene, Callable[[], Tokenizer]] = {
    open_lens: bpe_tokenizer,
    open_memorization: character_tokenizer,
    open_activations: bpe_tokenizer,
    open_top_activations: bpe_tokenizer,
}
"""Tokenizer of the training text that a scene needs."""
