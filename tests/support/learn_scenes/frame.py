"""Scenes of the class that belong to all chapters, and of the first chapter."""

from textual.pilot import Pilot

from lotr_tui.learn.progress import ProgressStore
from tests.support.learn import open_chapter


async def learn_tokens(pilot: Pilot[None]) -> None:
    """The first chapter with a line that has unknown words, and with the cut-off raised."""
    await open_chapter(pilot, "tokens")
    await pilot.press(*" Zorblax?", "tab", *["right"] * 5)
    await pilot.pause(0.1)


async def learn_tokens_figure(pilot: Pilot[None]) -> None:
    """The figure of the first chapter where it replaces the text."""
    await open_chapter(pilot, "tokens")
    await pilot.press("f5")
    await pilot.pause(0.1)


async def learn_done(pilot: Pilot[None]) -> None:
    """A chapter whose task is done."""
    _finish("tokens", "counting")
    await open_chapter(pilot, "tokens")
    await pilot.pause(0.1)


async def learn_contents(pilot: Pilot[None]) -> None:
    """The list of chapters, two of them done."""
    _finish("tokens", "perplexity")
    await open_chapter(pilot, "tokens")
    await pilot.press("f6", "down")
    await pilot.pause(0.1)


async def learn_source(pilot: Pilot[None]) -> None:
    """The code behind the first chapter."""
    await open_chapter(pilot, "tokens")
    await pilot.press("f4")
    await pilot.pause(0.1)


async def learn_too_small(pilot: Pilot[None]) -> None:
    """A chapter in a terminal that is too small."""
    await open_chapter(pilot, "tokens")


def _finish(*chapters: str) -> None:
    store = ProgressStore()
    for name in chapters:
        store.add(done=name)
    store.save()
