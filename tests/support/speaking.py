"""Helpers that drive a session with a model that knows speakers."""

from typing import Any

from textual.pilot import Pilot
from textual.widgets import Label

from lotr_tui.app import LotrApp
from lotr_tui.screens.session.role_labels import RoleLabels
from lotr_tui.screens.session.who_answers_bars import WhoAnswersBars
from lotr_tui.session.conversation.reply_tree import Reply
from tests.support.dialogues import dialogue_session_model
from tests.support.pilot import (
    MakeApp,
    conversation_of,
    latest_reply,
    lines_of,
    send,
    set_field,
    text_of,
    until,
    until_reply_ended,
)


def make_speaking_app(make_app: MakeApp, **options: Any) -> LotrApp:
    return make_app(session_model=dialogue_session_model(), **options)


async def say(pilot: Pilot[None], text: str = "the lamp was lit", seed: str = "7") -> Reply:
    """Say a line with a seed, and return the complete answer."""
    set_field(pilot.app, "seed", seed)
    await send(pilot, text)
    await until_reply_ended(pilot)
    return latest_reply(pilot.app)


async def run(pilot: Pilot[None], command: str) -> None:
    """Send a command, and wait until all answers are complete."""
    await send(pilot, command)
    await pilot.pause()
    await until(pilot, lambda: conversation_of(pilot.app).active_reply is None)
    await pilot.pause()


def screen_of(app: LotrApp) -> Any:
    return app.screen


def labels(app: LotrApp) -> list[str]:
    """Return the texts of the visible labels above the prompt."""
    return [text_of(label) for label in app.screen.query_one(RoleLabels).query(Label) if label.display]


def who_answers(app: LotrApp) -> list[str]:
    """Return the painted lines of the bars of speakers."""
    return [line.strip() for line in lines_of(app.screen.query_one(WhoAnswersBars)).splitlines() if line.strip()]


def num_turns(app: LotrApp) -> int:
    """Return the number of turns on the visible path."""
    reply, number = conversation_of(app).current_reply, 0
    while reply is not None:
        number, reply = number + 1, reply.turn.previous_reply
    return number
