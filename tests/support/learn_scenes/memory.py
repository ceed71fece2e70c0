"""Scenes of the chapter on memory."""

from textual.pilot import Pilot

from tests.support.learn import open_chapter


async def learn_memory(pilot: Pilot[None]) -> None:
    """The state is reset before the last word of a question, and the predictions disagree."""
    await open_chapter(pilot, "memory")
    await pilot.press("f5", "f8", "ctrl+u", *"What did you", "ctrl+left")
    await pilot.pause(0.1)


async def learn_memory_kept(pilot: Pilot[None]) -> None:
    """The example line with the state kept."""
    await open_chapter(pilot, "memory")
    await pilot.pause(0.1)
