"""Chapters of the class in an app, and figures that need no model, for tests of the screen around them."""

from functools import cache

from textual.widgets import Input

from lotr_tui.learn.chapters import find_chapter
from lotr_tui.learn.material import Material
from lotr_tui.screens.learn.figure import ChapterFigure
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.widgets.slider import Slider
from tests.support.pilot import text_of, until


class SliderFigure(ChapterFigure[int]):
    """A slider whose value finishes that part of the task."""

    def compose_figure(self):
        yield Slider("value", [str(value) for value in range(10)], help_line="A value of the test", id="value")

    def load(self, cancelled):
        yield "loading the test …"
        return 7

    def show_view(self):
        if value := self.query_one(Slider).index:
            self.finish_part(value - 1)


class FailingFigure(SliderFigure):
    def load(self, cancelled):
        yield "loading the test …"
        raise ValueError("the model\nis broken")


def chapter_screen(pilot):
    screen = pilot.app.screen
    assert isinstance(screen, ChapterScreen)
    return screen


@cache
def bundled_material():
    """Return the bundled dialogues and models, which are loaded and scored once for all tests of a process."""
    return Material()


async def open_chapter(pilot, name, make_material=bundled_material):
    """Open a chapter, and wait until its figure is shown."""
    await pilot.app.push_screen(ChapterScreen(make_material, find_chapter(name)))
    return await until_chapter(pilot, find_chapter(name))


async def until_chapter(pilot, index):
    screen = chapter_screen(pilot)
    await until(pilot, lambda: screen.index == index and screen.is_idle, 30)
    await pilot.pause()
    return screen


async def until_done(pilot):
    await until(pilot, lambda: chapter_screen(pilot).is_done)


async def type_line(pilot, text):
    """Replace the line of a figure, with the text cursor at its end, and wait until the figure follows it."""
    field = pilot.app.screen.query_one(Input)
    field.value, field.cursor_position = text, len(text)
    await pilot.pause()
    await until(pilot, lambda: chapter_screen(pilot).is_idle)
    await pilot.pause()


def shown(pilot, id):
    return text_of(pilot.app.screen.query_one(f"#{id}"))
