"""The table of the binding test: each key of each screen, the state that it changes, and the expected change."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from textual.widgets import Input, OptionList

from tests.support import scenes
from tests.support.analysis import is_idle
from tests.support.pilot import screen_name, until


class Row(NamedTuple):
    id: str
    observe: Callable[[Any], Any]  # function of the app that returns the state that the key changes
    expect: Callable[[Any, Any], bool]
    """Function that returns True if the state before and after the key differ as they should."""
    first_keys: tuple[str, ...] = ()  # keys to press before the state is observed
    prepare: Callable[[Any], None] = lambda app: None  # function of the app that is called before these keys
    back: str = ""  # id of a binding of the screen that the key opens, whose key leads back


class Stage(NamedTuple):
    """State of the app, and rows that are tested one after the other from it."""

    set_up: Callable[[Any], Awaitable[None]]  # function of the pilot that leads from the session to the state
    rows: Sequence[Row]
    size: tuple[int, int] = (80, 24)
    is_slow: bool = False  # true if the rows are about texts that are being written


# Observations


def of(widget_type, name):
    """Return a function that reads an attribute of the first widget of a type."""
    return lambda app: getattr(app.screen.query_one(widget_type), name)


def of_screen(name):
    return lambda app: getattr(app.screen, name)


def scroll_y(widget_type):
    """Return a function that reads the scroll offset of the first widget of a type."""
    return lambda app: app.screen.query_one(widget_type).scroll_offset.y


def focused(app):
    return type(app.screen.focused).__name__


def has_quit(app):
    return app.return_code is not None


def input_value(app):
    return app.screen.query_one(Input).value


def highlighted(app):
    return app.screen.query_one(OptionList).highlighted


# Expected changes


def changes(before, after):
    return before != after


def increases(before, after):
    return after > before


def decreases(before, after):
    return after < before


def becomes(value):
    return lambda before, after: before != value and after == value


def moves(steps):
    return lambda before, after: after == before + steps


# Rows and stages


def keys(prefix, observe, **expectations):
    """Return rows for keys that change the same state, by the suffix of their binding id, with _ for -."""
    return [Row(f"{prefix}.{suffix.replace('_', '-')}", observe, each) for suffix, each in expectations.items()]


def opens(prefix, **screens):
    """Return rows for keys that open screens, or screens with the ids of the bindings that close them again."""
    rows = []
    for suffix, screen in screens.items():
        name, back = (screen, "") if isinstance(screen, str) else screen
        rows += [row._replace(back=back) for row in keys(prefix, screen_name, **{suffix: becomes(name)})]
    return rows


def closes(id, screen, *first_keys):
    return Row(id, screen_name, becomes(screen), first_keys)


def with_focus(open_screen, widget_type, *first_keys):
    """Return a function that opens a screen that analyses a text, presses keys, and focuses a widget."""

    async def set_up(pilot):
        await open_screen(pilot)
        await pilot.press(*first_keys)
        await until(pilot, lambda: is_idle(pilot.app))
        pilot.app.screen.query_one(widget_type).focus()

    return set_up


LONG_TEXT = "\n".join([scenes.LENS_TEXT, scenes.REPLY_TEXT] * 4)  # text of more lines than fit on the screen
PAGES = {"page_down": increases, "page_up": decreases, "last": increases, "first": decreases}
LIST = {"down": moves(1), "up": moves(-1), **PAGES}
LINE_OF_WORDS = {"right": moves(1), "left": moves(-1), "down": increases, "up": decreases, **PAGES}
