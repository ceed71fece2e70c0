"""Rows for the keys of the chapter on memory, and of a choice between options."""

from textual.pilot import Pilot

from lotr_tui.screens.learn.figures.memory.figure import MemoryFigure
from lotr_tui.widgets.choice_bar import ChoiceBar
from lotr_tui.widgets.slider import Slider
from tests.support.bindings.expectations import becomes, changes, moves
from tests.support.bindings.observations import of
from tests.support.bindings.rows import Row, Stage
from tests.support.learn import open_chapter


async def memory(pilot: Pilot[None]) -> None:
    await open_chapter(pilot, "memory")


async def choice(pilot: Pilot[None]) -> None:
    await memory(pilot)
    pilot.app.screen.query_one(ChoiceBar).focus()


LEARN_MEMORY: dict[str, Stage] = {
    "memory": Stage(
        memory,
        [
            Row("learn-memory.reset", of(MemoryFigure, "is_reset"), becomes(True)),
            Row("learn-memory.next-unit", of(Slider, "index"), moves(1)),
            Row("learn-memory.previous-unit", of(Slider, "index"), moves(-1)),
            Row("learn-memory.liveliest", of(MemoryFigure, "unit"), changes, first_keys=("up",)),
        ],
    ),
    "choice between options": Stage(
        choice,
        [
            Row("choice-bar.next", of(ChoiceBar, "index"), moves(1)),
            Row("choice-bar.previous", of(ChoiceBar, "index"), moves(-1)),
        ],
    ),
}
