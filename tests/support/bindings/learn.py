"""Rows for the keys of the class that all chapters have."""

from typing import Any

from textual.pilot import Pilot

from lotr_tui.learn.progress import ProgressStore
from lotr_tui.screens.learn.source_screen import SourceScreen
from lotr_tui.widgets.slider import Slider
from tests.support.bindings.expectations import becomes, moves
from tests.support.bindings.observations import of, of_screen, screen_name
from tests.support.bindings.rows import Row, Stage
from tests.support.learn import open_chapter

LAST_CUTOFF = 49
"""Index of the highest cut-off of the first chapter."""


def hint_is_shown(app: Any) -> bool:
    return "Hint" in str(app.screen.query_one("#sentences").render())


def figure_is_visible(app: Any) -> bool:
    return bool(app.screen.query_one("#figure-place").region)


async def first_chapter(pilot: Pilot[None], *, done: bool = False) -> None:
    """Open the first chapter, whose task is done or not."""
    if done:
        store = ProgressStore()
        store.add(done="tokens")
        store.save()
    await open_chapter(pilot, "tokens")


async def slider(pilot: Pilot[None]) -> None:
    await first_chapter(pilot)
    pilot.app.screen.query_one(Slider).focus()


async def code(pilot: Pilot[None]) -> None:
    await first_chapter(pilot)
    await pilot.press("f4")
    assert isinstance(pilot.app.screen, SourceScreen)


async def contents(pilot: Pilot[None]) -> None:
    await first_chapter(pilot, done=True)
    await pilot.press("f6")


LEARN: dict[str, Stage] = {
    "chapter": Stage(
        first_chapter,
        [
            Row("learn.next", of_screen("index"), becomes(1)),
            Row("learn.previous", of_screen("index"), becomes(0)),
            Row("learn.hint", hint_is_shown, becomes(True)),
            Row("learn.source", screen_name, becomes("SourceScreen")),
            Row("learn.contents", screen_name, becomes("ContentsDialog")),
            Row("learn.close", screen_name, becomes("SessionScreen")),
        ],
    ),
    "chapter in a small terminal": Stage(
        first_chapter, [Row("learn.part", figure_is_visible, becomes(True))], size=(60, 20)
    ),
    "slider of a chapter": Stage(
        slider,
        [
            Row("slider.higher", of(Slider, "index"), moves(1)),
            Row("slider.lower", of(Slider, "index"), moves(-1)),
            Row("slider.highest", of(Slider, "index"), becomes(LAST_CUTOFF)),
            Row("slider.lowest", of(Slider, "index"), becomes(0)),
        ],
    ),
    "code of a chapter": Stage(code, [Row("learn-source.close", screen_name, becomes("ChapterScreen"))]),
    "contents of the class": Stage(
        contents,
        [
            Row("learn-contents.reset", screen_name, becomes("ConfirmDialog")),
            Row("confirm.enter", screen_name, becomes("ContentsDialog"), ("r",)),
            Row("learn-contents.close", screen_name, becomes("ChapterScreen")),
        ],
    ),
}
