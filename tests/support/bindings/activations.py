"""Keys of the activations screen."""

from typing import Any

from textual.pilot import Pilot

from lotr_tui.screens.activations.gate_strips import GateStrips
from lotr_tui.screens.activations.screen import ActivationsScreen
from lotr_tui.screens.activations.top_activations import UnitTopActivations
from lotr_tui.screens.activations.unit_activations import UnitActivations
from lotr_tui.screens.text.view import TokenTextView
from tests.support import scenes
from tests.support.analysis import is_idle
from tests.support.bindings.expectations import becomes, changes, decreases, moves
from tests.support.bindings.observations import focused, of, of_screen
from tests.support.bindings.rows import LINE_OF_WORDS, LIST, LONG_TEXT, Row, Stage, cursor_rows, with_focus
from tests.support.pilot import until


async def activations(pilot: Pilot[None]) -> None:
    app: Any = pilot.app
    await app.push_screen(ActivationsScreen(scenes.large_model(app), LONG_TEXT))
    await until(pilot, lambda: is_idle(app))


ACTIVATIONS: dict[str, Stage] = {
    "activations": Stage(
        activations,
        [
            Row("activations.previous", of(TokenTextView, "cursor"), moves(-1)),
            Row("activations.next", of(TokenTextView, "cursor"), moves(1)),
            Row("gate-strips.first", of(GateStrips, "unit"), becomes(0)),
            Row("gate-strips.right", of(GateStrips, "unit"), moves(1)),
            Row("gate-strips.left", of(GateStrips, "unit"), moves(-1)),
            Row("gate-strips.page-down", of(GateStrips, "unit"), moves(20)),
            Row("gate-strips.page-up", of(GateStrips, "unit"), moves(-20)),
            Row("gate-strips.last", of(GateStrips, "unit"), becomes(199)),
            Row("gate-strips.up", of(GateStrips, "gate"), becomes("candidate")),
            Row("gate-strips.down", of(GateStrips, "gate"), becomes("cell")),
            Row("gate-strips.largest", of(GateStrips, "unit"), changes),
            Row("gate-strips.zoom", of(GateStrips, "units_per_cell"), becomes(1)),
            Row("activations.pin", lambda app: app.screen.pinned_unit is None, becomes(False)),  # type: ignore[attr-defined]
            Row("activations.edit", focused, becomes("LineInput")),
            Row("activations.other", lambda app: app.screen.has_class("-search-results"), becomes(True)),
            Row("activations.find", of(UnitTopActivations, "examples"), changes),
            Row("activations.layer", of_screen("layer_index"), becomes(1)),
        ],
    ),
    "text of the activations": Stage(
        with_focus(activations, TokenTextView),
        [
            Row("token-text-view.first", of(TokenTextView, "cursor"), becomes(0)),
            *cursor_rows("token-text-view", of(TokenTextView, "cursor"), LINE_OF_WORDS),
        ],
        size=(60, 14),
    ),
    "activations of a unit": Stage(
        with_focus(activations, UnitActivations),
        [*cursor_rows("unit-activations", of(UnitActivations, "cursor"), {"first": decreases, **LIST})],
    ),
    "top activations of a unit": Stage(
        with_focus(activations, UnitTopActivations, "f4"),
        [
            *cursor_rows("unit-top-activations", of(UnitTopActivations, "cursor"), LIST),
            Row("unit-top-activations.select", of_screen("text"), changes),
        ],
    ),
}
