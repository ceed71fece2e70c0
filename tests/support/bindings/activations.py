"""Keys of the screen that shows the inside of a model."""

from collections.abc import Awaitable, Callable
from typing import Any

from textual.pilot import Pilot

from lotr_tui.screens.activations.gate_strips import GateStrips
from lotr_tui.screens.activations.screen import InsideScreen
from lotr_tui.screens.activations.unit_contexts import UnitFound
from lotr_tui.screens.activations.unit_trace import UnitAlong
from lotr_tui.screens.text.view import PageText
from tests.lotr_tui.screens.activations.test_activations_screen import at_rest as inside_at_rest
from tests.lotr_tui.screens.session.test_session_screen import until
from tests.support import scenes
from tests.support.bindings.rows import (
    LINE_OF_WORDS,
    LINES,
    LIST,
    Row,
    Stage,
    becomes,
    focused,
    less,
    moves,
    of,
    other,
    own,
    walk_along,
)


async def inside(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await app.push_screen(InsideScreen(scenes.two_layers(app), LINES))
    await until(pilot, lambda: bool(app.screen._layers) and inside_at_rest(app))


def inside_at(kind: type[Any], *keys: str) -> Callable[[Pilot[None]], Awaitable[None]]:
    async def set_up(pilot: Pilot[None]) -> None:
        app: Any = pilot.app
        await inside(pilot)
        await pilot.press(*keys)
        await until(pilot, lambda: inside_at_rest(app))
        app.screen.query_one(kind).focus()

    return set_up


INSIDE: dict[str, Stage] = {
    "inside": Stage(
        inside,
        [
            Row("inside.before", of(PageText, "cursor"), moves(-1)),
            Row("inside.next", of(PageText, "cursor"), moves(1)),
            Row("gate-strips.first", of(GateStrips, "unit"), becomes(0)),
            Row("gate-strips.right", of(GateStrips, "unit"), moves(1)),
            Row("gate-strips.left", of(GateStrips, "unit"), moves(-1)),
            Row("gate-strips.page-down", of(GateStrips, "unit"), moves(20)),
            Row("gate-strips.page-up", of(GateStrips, "unit"), moves(-20)),
            Row("gate-strips.last", of(GateStrips, "unit"), becomes(199)),
            Row("gate-strips.up", of(GateStrips, "part"), becomes("candidate")),
            Row("gate-strips.down", of(GateStrips, "part"), becomes("cell")),
            Row("gate-strips.most", of(GateStrips, "unit"), other),
            Row("gate-strips.zoom", of(GateStrips, "bin"), becomes(1)),
            Row("inside.pin", lambda app: app.screen._pinned is None, becomes(False)),  # type: ignore[attr-defined]
            Row("inside.edit", focused, becomes("LineBox")),
            Row("inside.other", lambda app: app.screen.has_class("-found"), becomes(True)),
            Row("inside.find", of(UnitFound, "_items"), other),
            Row("inside.layer", own("_depth"), becomes(1)),
        ],
    ),
    "text inside": Stage(
        inside_at(PageText),
        [
            Row("page-text.first", of(PageText, "cursor"), becomes(0)),
            *walk_along("page-text", of(PageText, "cursor"), LINE_OF_WORDS),
        ],
        size=(60, 14),
    ),
    "unit along": Stage(
        inside_at(UnitAlong),
        [*walk_along("unit-along", of(UnitAlong, "_cursor"), {"first": less, **LIST})],
    ),
    "unit found": Stage(
        inside_at(UnitFound, "f4"),
        [
            *walk_along("unit-found", of(UnitFound, "_cursor"), LIST),
            Row("unit-found.read", own("_text"), other),
        ],
    ),
}
