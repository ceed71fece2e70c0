"""Scenes for snapshots of conversations with a model that knows speakers."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from engine.generation.settings import SamplerSettings
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.screens.session.run_chart import RunPerplexityChart
from lotr_tui.session.answer_score import AnswerScore
from lotr_tui.session.saved_session import SavedReply, SavedToken
from lotr_tui.session.session_file import SessionWriter
from lotr_tui.widgets.prompt.prompt_input import PromptInput
from tests.support.app import VOCABULARY
from tests.support.dialogues import dialogue_session_model
from tests.support.pilot import until
from tests.support.scenes import finished_view
from tests.support.sessions import saved_reply

TIME = 1_600_000_000
SETTINGS = SamplerSettings(top_p=0.9)


def spoken_reply(id: int, text: str, speaker: str, prompt: str | None, **changes: Any) -> SavedReply:
    """Return a saved reply of a conversation, which follows the reply before it."""
    tokens = tuple(SavedToken(VOCABULARY.token_to_id[word], word, -2.0, 0.14, 3, 5.2) for word in text.split())
    parent = {"parent_id": id - 1} if id else {}
    return replace(
        saved_reply(id, prompt=prompt, settings=SETTINGS, reason="eos", tokens_per_second=14_200.0),
        **{"reply_mode": "conversation", "speaker": speaker, "tokens": tokens, **parent, **changes},
    )


def save_conversation() -> Path:
    """Write a session of three turns, the last one with two answers that were drawn together, and return its file."""
    writer = SessionWriter("scenes")
    writer.session = replace(writer.session, started=TIME)
    first = spoken_reply(0, "he kept his promise and walked with our friend", "GANDALF", "Where is the ranger?")
    second = spoken_reply(
        1, "i think he walked all night", "GOLLUM", "", parent_offset=len(first.tokens), speaker_prob=0.31
    )
    third = spoken_reply(
        2,
        "the lamp was lit before winter came down from the north and we asked for bread in the high tower",
        "GANDALF",
        "Where is the lamp, wizard?",
        speaking_as="FRODO",
        parent_offset=len(second.tokens),
        unknown_tokens=("wizard",),
        score=AnswerScore(1, 2, -30.0, -38.0, 20),
    )
    other = spoken_reply(
        3,
        "nothing",
        "GOLLUM",
        "Where is the lamp, wizard?",
        speaking_as="FRODO",
        parent_id=1,
        parent_offset=len(second.tokens),
        unknown_tokens=("wizard",),
        score=AnswerScore(2, 2, -4.0, -4.0, 2),
    )
    for reply in (first, second, third, other):
        writer.save(reply)
    writer.set_current(2)
    writer.close()
    path: Path = writer._folder / f"{writer.session.name}.jsonl"
    os.utime(path, (TIME, TIME))
    return path


async def use_speakers(pilot: Pilot[None]) -> None:
    """Use a model that knows speakers."""
    app: Any = pilot.app
    await until(pilot, lambda: app.screen.query("#training"))
    app.screen.set_session_model(dialogue_session_model())
    await pilot.pause()


async def first_conversation(pilot: Pilot[None]) -> None:
    """The first screen of a model that knows speakers."""
    await use_speakers(pilot)


async def conversation(pilot: Pilot[None]) -> None:
    """A conversation of three turns, a chosen speaker, and a line that is being typed."""
    app: Any = pilot.app
    await use_speakers(pilot)
    view = app.screen.query_one(ConversationView)
    assert view.open_session(save_conversation(), app.screen.session_model)
    app.screen.set_roles(app.screen.roles._replace(speaker="GOLLUM", speaking_as="FRODO"))
    app.screen.query_one("#prompt", PromptInput).value = "we walked"
    app.screen.query_one(RunPerplexityChart).show(finished_view())
    await pilot.pause()


async def who_answers_pane(pilot: Pilot[None]) -> None:
    """The bars of a conversation on a narrow terminal."""
    await conversation(pilot)
    await pilot.press("f2")
    await pilot.pause()


async def answers(pilot: Pilot[None]) -> None:
    """The comparison of two answers, and the cursor on a word."""
    await conversation(pilot)
    await pilot.press("ctrl+g", "c", "left")
    await pilot.pause()


async def cast_dialog(pilot: Pilot[None]) -> None:
    """The dialog for the cast, in which a part of a name was typed."""
    await conversation(pilot)
    await pilot.press("ctrl+d", "g")
    await pilot.pause()
