"""The table of the binding test: each key of each screen, the state that it changes, and the expected change."""

import operator
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from tests.support.pilot import screen_name

DIFFERENCES = {"changes": operator.ne, "increases": operator.lt, "decreases": operator.gt}


class Row(NamedTuple):
    id: str
    observe: Callable[[Any], Any]  # function of the app that returns the state that the key changes
    expect: Any  # the state after the key, a word in `DIFFERENCES`, or a function of the states before and after it
    first_keys: tuple[str, ...] = ()  # keys to press before the state is observed
    focus: str = ""  # selector of the widget that is focused before these keys
    back: str = ""  # id of a binding of the screen that the key opens, whose key leads back

    def is_met(self, before, after):
        if isinstance(self.expect, str) and self.expect in DIFFERENCES:
            return DIFFERENCES[self.expect](before, after)
        return self.expect(before, after) if callable(self.expect) else before != self.expect == after


class Stage(NamedTuple):
    """State of the app, and rows that are tested one after the other from it."""

    set_up: Callable[[Any], Awaitable[None]]  # function of the pilot that leads from the session to the state
    rows: Sequence[Row]
    size: tuple[int, int] = (80, 24)
    is_slow: bool = False  # true if the rows are about texts that are being written


# Observations


def of(widget_type, name):
    return lambda app: getattr(app.screen.query_one(widget_type), name)


def of_screen(name):
    return lambda app: getattr(app.screen, name)


def scroll_y(widget_type):
    return lambda app: app.screen.query_one(widget_type).scroll_offset.y


def focused(app):
    return type(app.screen.focused).__name__


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
        rows += [row._replace(back=back) for row in keys(prefix, screen_name, **{suffix: name})]
    return rows


def closes(id, screen, *first_keys):
    return Row(id, screen_name, screen, first_keys)


PAGES = {"page_down": "increases", "page_up": "decreases", "last": "increases", "first": "decreases"}
LIST = {"down": moves(1), "up": moves(-1), **PAGES}
