"""Helpers that drive a session with a model that knows speakers."""

from lotr_tui.screens.session.side import WhoAnswersBars
from tests.support import pilot as ui


async def say(pilot, text="the lamp was lit", seed="7"):
    return await ui.reply_to(pilot, text, seed)


async def run(pilot, command):
    await ui.send(pilot, command)
    await pilot.pause()
    await ui.until(pilot, lambda: ui.conversation_of(pilot.app).active_reply is None)
    await pilot.pause()


def labels(app):
    return [ui.text_of(label) for label in app.screen.query_one("RoleLabels").query("Label") if label.display]


def who_answers(app):
    return [line.strip() for line in ui.lines_of(app.screen.query_one(WhoAnswersBars)).splitlines() if line.strip()]


def num_turns(app):
    reply, number = ui.conversation_of(app).current_reply, 0
    while reply is not None:
        number, reply = number + 1, reply.turn.previous_reply
    return number
