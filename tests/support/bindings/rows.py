"""Rows and stages of the binding test: a key, the observed state, and its expected change."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NamedTuple

from textual.pilot import Pilot

from tests.support import scenes
from tests.support.analysis import is_idle
from tests.support.bindings.expectations import Expect, decreases, increases, moves
from tests.support.bindings.observations import Observe
from tests.support.pilot import until


class Row(NamedTuple):
    """Binding and the effect of its key."""

    id: str
    observe: Observe
    expect: Expect
    first_keys: tuple[str, ...] = ()
    """Keys to press before the state is observed."""
    prepare: Callable[[], None] = lambda: None


class Stage(NamedTuple):
    """State of the app, and rows that are tested one after the other from it."""

    set_up: Callable[[Pilot[None]], Awaitable[None]]
    rows: Sequence[Row]
    size: tuple[int, int] = (80, 24)
    pace: float = 0
    trains: bool = False
    """True if the app is the dashboard of a `FakeJob`."""


def with_focus(
    open_screen: Callable[[Pilot[None]], Awaitable[None]], widget_type: type[Any], *keys: str
) -> Callable[[Pilot[None]], Awaitable[None]]:
    """Return a function that opens a screen that analyses a text, presses keys, and focuses a widget."""

    async def set_up(pilot: Pilot[None]) -> None:
        await open_screen(pilot)
        await pilot.press(*keys)
        await until(pilot, lambda: is_idle(pilot.app))
        pilot.app.screen.query_one(widget_type).focus()

    return set_up


def cursor_rows(prefix: str, observe: Observe, expectations: dict[str, Expect]) -> list[Row]:
    """Return rows for the keys that move a cursor, by the suffix of their binding id."""
    return [Row(f"{prefix}.{suffix}", observe, expect) for suffix, expect in expectations.items()]


LONG_TEXT = "\n".join([scenes.LENS_TEXT, scenes.REPLY_TEXT] * 4)
"""Text of more lines than fit on the screen."""
PAGES: dict[str, Expect] = {"page-down": increases, "page-up": decreases, "last": increases, "first": decreases}
LIST: dict[str, Expect] = {"down": moves(1), "up": moves(-1), **PAGES}
LINE_OF_WORDS: dict[str, Expect] = {"right": moves(1), "left": moves(-1), "down": increases, "up": decreases, **PAGES}
