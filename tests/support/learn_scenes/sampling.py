"""Scenes of the chapter on sampling."""

from textual.pilot import Pilot

from tests.support.learn import chapter_screen, open_chapter
from tests.support.pilot import until


async def learn_sampling(pilot: Pilot[None]) -> None:
    """A low temperature and a small top-k."""
    await open_chapter(pilot, "sampling")
    await pilot.press("tab", *["left"] * 10, "tab", *["left"] * 12)
    await until(pilot, lambda: chapter_screen(pilot).is_idle)
    await pilot.pause(0.1)


async def learn_sampling_figure(pilot: Pilot[None]) -> None:
    """The figure where it replaces the text, with a high temperature."""
    await open_chapter(pilot, "sampling")
    await pilot.press("f5", "tab", *["right"] * 10)
    await until(pilot, lambda: chapter_screen(pilot).is_idle)
    await pilot.pause(0.1)
