"""Chapters of the class in an app."""

from functools import cache

from textual.widgets import Static

from lotr_tui.learn.chapters import CHAPTERS, find_chapter
from lotr_tui.learn.material import Material
from lotr_tui.learn.progress import ProgressStore
from lotr_tui.screens.learn.figures.training import LiveTrainingFigure
from lotr_tui.screens.learn.screen import ChapterScreen
from lotr_tui.widgets.keys import KeyFooter
from tests.support.pilot import lines_of, text_of, until


def open_class_before():
    """Write the progress of a user who has opened the class, so that the session does not mention it."""
    store = ProgressStore()
    store.add(last=CHAPTERS[0].name)
    assert not store.save()


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
    screen = chapter_screen(pilot)
    await until(pilot, lambda: screen.is_idle, 30)
    await pilot.pause()
    return screen


async def until_done(pilot):
    await until(pilot, lambda: chapter_screen(pilot).is_done)


def task_text(screen):
    return text_of(screen.query_one("#task", Static))


def sentences(screen):
    return text_of(screen.query_one("#sentences", Static))


def footer(screen):
    return lines_of(screen.query_one(KeyFooter))


async def until_chapter(pilot, index):
    screen = chapter_screen(pilot)
    await until(pilot, lambda: screen.index == index and screen.is_idle)
    await pilot.pause()
    return screen


def num_evaluations(pilot):
    """Return the number of evaluations of the live training that are shown."""
    training = chapter_screen(pilot).query_one(LiveTrainingFigure).training
    return 0 if training is None else len(training.view.evaluations)
