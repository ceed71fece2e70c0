"""Observed states of the app, which keys change."""

from collections.abc import Callable
from typing import Any

from lotr_tui.app import LotrApp
from lotr_tui.screens.session.conversation.transcript import Transcript
from lotr_tui.screens.session.conversation.view import ConversationView
from lotr_tui.session.conversation.reply_tree import Reply
from lotr_tui.widgets.prompt.prompt_input import PromptInput

Observe = Callable[[LotrApp], Any]
"""Function that returns the state that a key changes."""


def of(widget_type: type[Any], name: str) -> Observe:
    """Return a function that reads an attribute of the first widget of a type."""
    return lambda app: getattr(app.screen.query_one(widget_type), name)


def of_screen(name: str) -> Observe:
    """Return a function that reads an attribute of the screen."""
    return lambda app: getattr(app.screen, name)


def of_app(name: str) -> Observe:
    """Return a function that reads an attribute of the app."""
    return lambda app: getattr(app, name)


def scroll_y(widget_type: type[Any]) -> Observe:
    """Return a function that reads the scroll offset of the first widget of a type."""
    return lambda app: app.screen.query_one(widget_type).scroll_offset.y


def screen_name(app: LotrApp) -> str:
    return type(app.screen).__name__


def focused(app: LotrApp) -> str:
    return type(app.screen.focused).__name__


def view(app: LotrApp) -> ConversationView:
    return app.screen_stack[0].query_one(ConversationView)


def reply(app: LotrApp) -> Reply:
    target = view(app).target_reply
    assert target is not None
    return target


def branch_count(app: LotrApp) -> int:
    return len(reply(app).turn.replies)


def cursor(app: LotrApp) -> tuple[int, int]:
    """Return the entry and the token under the cursor of the transcript."""
    return app.screen.query_one(Transcript).cursor or (-1, -1)


def prompt_column(app: LotrApp) -> int:
    return app.screen.query_one(PromptInput).cursor_location[1]
