"""Rows for the keys of the chapter on perplexity."""

from textual.pilot import Pilot
from textual.widgets import Input

from lotr_tui.screens.learn.figures.perplexity.word_bits import WordBits
from tests.support.bindings.expectations import becomes, decreases, increases, moves
from tests.support.bindings.observations import of
from tests.support.bindings.rows import Stage, cursor_rows
from tests.support.learn import chapter_screen, open_chapter
from tests.support.pilot import until


async def words(pilot: Pilot[None]) -> None:
    """Open the chapter with a line of several rows of words, and focus them."""
    screen = await open_chapter(pilot, "perplexity")
    screen.query_one(Input).value = "where is the ring " * 10
    await pilot.pause()
    await until(pilot, lambda: chapter_screen(pilot).is_idle)
    screen.query_one(WordBits).focus()
    screen.query_one(WordBits).move_cursor(0)


LEARN_PERPLEXITY: dict[str, Stage] = {
    "words of a line with their bits": Stage(
        words,
        cursor_rows(
            "learn-perplexity",
            of(WordBits, "cursor"),
            {
                "right": moves(1),
                "left": moves(-1),
                "down": increases,
                "up": decreases,
                "last": becomes(39),
                "first": becomes(0),
            },
        ),
    ),
}
