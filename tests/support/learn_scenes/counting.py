"""Scenes of the chapter on counts."""

from textual.pilot import Pilot

from tests.support.learn import chapter_screen, open_chapter
from tests.support.pilot import until


async def learn_counting(pilot: Pilot[None]) -> None:
    """A word of the line, some of whose contexts were seen, and an unknown word before it."""
    await open_chapter(pilot, "counting")
    await pilot.press(*" Zorblax", *["ctrl+left"] * 2, "f8")
    await until(pilot, lambda: chapter_screen(pilot).is_idle)
    await pilot.pause(0.1)


async def learn_counting_trigram(pilot: Pilot[None]) -> None:
    """The figure of a lower order, where the figure replaces the text."""
    await open_chapter(pilot, "counting")
    await pilot.press("f5", "down", "down")
    await until(pilot, lambda: chapter_screen(pilot).is_idle)
    await pilot.pause(0.1)
