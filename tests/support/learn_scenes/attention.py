"""Scenes of the chapter on attention."""

from textual.pilot import Pilot

from tests.support.learn_attention import open_attention_chapter


async def learn_attention(pilot: Pilot[None]) -> None:
    """A typed line, and a head that looks more than half at one earlier word."""
    screen = await open_attention_chapter(pilot)
    await pilot.press("f5", *" lamp", "tab", *["down"] * 4, "left")
    while not screen.is_idle:
        await pilot.pause(0.05)
    await pilot.pause(0.1)


async def learn_attention_models(pilot: Pilot[None]) -> None:
    """The compared models, with the pre-trained one selected."""
    screen = await open_attention_chapter(pilot)
    await pilot.press("f5", "f8", "end")
    if not screen.query_one("#figure").has_class("-models"):  # the list is visible all the time
        await pilot.press("tab", "tab", "end")
    await pilot.pause(0.1)
