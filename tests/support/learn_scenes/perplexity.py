"""Scenes of the chapter on perplexity."""

from textual.pilot import Pilot

from lotr_tui.screens.learn.figures.perplexity.word_bits import WordBits
from lotr_tui.widgets.slider import Slider
from tests.support.learn import chapter_screen, open_chapter
from tests.support.pilot import until


async def learn_perplexity(pilot: Pilot[None]) -> None:
    """A typed line with an unknown word, the cursor on a certain word, and a window that scores words."""
    screen = await open_chapter(pilot, "perplexity")
    if not screen.query_one("#figure-place").region:
        await pilot.press("f5")
    await pilot.press("end", *" I do not know, Zorblax.")
    await until(pilot, lambda: chapter_screen(pilot).is_idle)
    screen.query_one(Slider).index = 29
    words = screen.query_one(WordBits)
    words.focus()
    words.move_cursor(2)
    await pilot.pause(0.1)
