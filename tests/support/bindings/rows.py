"""What a row of the binding table's test is: a key, what is looked at, and what is wanted of it."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.pilot import Pilot

from lotr_tui.app import LotrApp
from lotr_tui.screens.session.conversation_view import ConversationView
from lotr_tui.screens.session.transcript import Transcript
from lotr_tui.widgets.prompt import Prompt
from tests.support import scenes

Look = Callable[[LotrApp], Any]
"""What of the app the action is about."""
Wanted = Callable[[Any, Any], bool]
"""Whether that is as it should be, from what it was before the key to what it is after it."""


@dataclass(frozen=True)
class Row:
    """A binding, and what its key does; `first` are keys that lead to where it applies."""

    id: str
    look: Look
    wanted: Wanted
    first: tuple[str, ...] = ()
    prepare: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Stage:
    """An app in a state of its own. Its rows are gone through in their order, each from where the last one left it."""

    set_up: Callable[[Pilot[None]], Awaitable[None]]
    rows: Sequence[Row]
    size: tuple[int, int] = (80, 24)
    pace: float = 0
    trains: bool = False
    """Whether the app is the dashboard of a `FakeJob`."""


# What is wanted


def other(before: Any, after: Any) -> bool:
    return bool(before != after)


def more(before: Any, after: Any) -> bool:
    return bool(after > before)


def less(before: Any, after: Any) -> bool:
    return bool(after < before)


def becomes(value: Any) -> Wanted:
    """That it was not so before, and is now."""
    return lambda before, after: bool(before != value and after == value)


def moves(steps: int) -> Wanted:
    return lambda before, after: bool(after == before + steps)


# What is looked at


def of(kind: type[Any], name: str) -> Look:
    """An attribute of the first widget of a kind."""
    return lambda app: getattr(app.screen.query_one(kind), name)


def own(name: str) -> Look:
    """An attribute of the screen."""
    return lambda app: getattr(app.screen, name)


def scrolled(kind: type[Any]) -> Look:
    return lambda app: app.screen.query_one(kind).scroll_offset.y


def screen_name(app: LotrApp) -> str:
    return type(app.screen).__name__


def focused(app: LotrApp) -> str:
    return type(app.screen.focused).__name__


def view(app: LotrApp) -> ConversationView:
    return app.screen_stack[0].query_one(ConversationView)


def reply(app: LotrApp) -> Any:
    found = view(app).reply
    assert found is not None
    return found


def place(app: LotrApp) -> tuple[int, int]:
    """Entry and word of the cursor."""
    return app.screen.query_one(Transcript).cursor or (-1, -1)


def column(app: LotrApp) -> int:
    return app.screen.query_one(Prompt).cursor_location[1]


def files(kind: str) -> Look:
    return lambda app: len(list(Path.cwd().glob(f"*.{kind}")))


def branches(app: LotrApp) -> int:
    return len(reply(app).turn.replies)


def walk_along(prefix: str, look: Look, names: dict[str, Wanted]) -> list[Row]:
    """Rows of the keys that move a cursor."""
    return [Row(f"{prefix}.{name}", look, wanted) for name, wanted in names.items()]


def of_app(name: str) -> Look:
    return lambda app: getattr(app, name)


LINES = "\n".join([scenes.READ, scenes.SAID] * 4)
"""A text of more lines than are seen at once."""
PAGES: dict[str, Wanted] = {"page-down": more, "page-up": less, "last": more, "first": less}
LIST: dict[str, Wanted] = {"down": moves(1), "up": moves(-1), **PAGES}

LINE_OF_WORDS: dict[str, Wanted] = {"right": moves(1), "left": moves(-1), "down": more, "up": less, **PAGES}
