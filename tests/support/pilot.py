"""Helpers that drive the app through a Textual pilot and read its widgets."""

import re
import time
from collections.abc import Callable
from typing import Any

from textual.app import App
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Input

from lotr_tui.app import LotrApp
from lotr_tui.screens.session.conversation.token_inspector import TokenInspector
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.screens.session.next_token_bars import NextTokenBars
from lotr_tui.session.conversation.conversation import Conversation
from lotr_tui.session.conversation.entries import Exchange
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.widgets.prompt.prompt_input import PromptInput

MakeApp = Callable[..., LotrApp]


async def until(pilot: Pilot[None], condition: Callable[[], object], seconds: float = 10) -> None:
    """Run the app until `condition` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        await pilot.pause(0.01)


def text_of(widget: object) -> str:
    """Return the text of a widget without styles."""
    return str(widget.render())  # type: ignore[attr-defined]


def lines_of(widget: Widget) -> str:
    """Return the painted lines of a widget."""
    return "\n".join(widget.render_line(y).text for y in range(widget.size.height))


def notices(app: App[Any]) -> str:
    """Return the messages of all notifications, one per line."""
    return "\n".join(notification.message for notification in app._notifications)


# The session


def conversation_of(app: App[Any]) -> Conversation:
    """Return the conversation of the session on the screen."""
    return app.screen.query_one(ConversationView).conversation


def latest_reply(app: App[Any]) -> Reply:
    """Return the latest reply that is shown."""
    reply = conversation_of(app).current_reply
    assert reply is not None
    return reply


def entries(app: App[Any], entry_type: type) -> list[str]:
    """Return the texts of the exchanges or notes of the transcript, without figures."""
    transcript = app.screen.query_one(Transcript)
    found = [entry for entry in transcript.entries if isinstance(entry, entry_type)]
    return ["\n".join(block.text for block in entry.blocks()) for entry in found]


def exchange_text(app: App[Any]) -> str:
    """Return the text of the last exchange, with its figures below the reply once that has ended."""
    exchange = [entry for entry in app.screen.query_one(Transcript).entries if isinstance(entry, Exchange)][-1]
    lines = [block.text for block in exchange.blocks()]
    if not exchange.is_generating:
        lines.insert(len(lines) - len(exchange.other_branches), exchange.figures)
    return "\n".join(lines)


def transcript_text(app: App[Any]) -> str:
    """Return the painted lines of the transcript."""
    return lines_of(app.screen.query_one(Transcript))


def bars_text(app: App[Any]) -> str:
    """Return the painted lines of the next-token bars."""
    return lines_of(app.screen.query_one(NextTokenBars))


def inspector_text(app: App[Any]) -> str:
    """Return the painted lines of the token inspector."""
    return lines_of(app.screen.query_one(TokenInspector))


def alternative_to(app: App[Any], token: str) -> tuple[int, str]:
    """Return the number and text of an alternative in the token inspector that differs from `token`."""
    alternatives = re.findall(r"^([1-8])[ ●]([a-z']+)", inspector_text(app), re.MULTILINE)
    return next((int(number), text) for number, text in alternatives if text != token)


def set_field(app: App[Any], field: str, value: str) -> None:
    """Set a number in the sampling controls."""
    app.screen.query_one(f"#{field} Input", Input).value = value


async def send(pilot: Pilot[None], prompt: str) -> None:
    """Type a prompt and send it."""
    pilot.app.screen.query_one("#prompt", PromptInput).value = prompt
    await pilot.press("enter")


async def until_reply_ended(pilot: Pilot[None]) -> None:
    """Run the app until the reply is complete."""
    app = pilot.app
    await until(pilot, lambda: conversation_of(app).active_reply is None and conversation_of(app).current_reply)
    await pilot.pause()


async def reply_to(pilot: Pilot[None], prompt: str = "bilbo is", seed: str = "7") -> Reply:
    """Send a prompt with a seed, and return the complete reply."""
    set_field(pilot.app, "seed", seed)
    await send(pilot, prompt)
    await until_reply_ended(pilot)
    return latest_reply(pilot.app)
