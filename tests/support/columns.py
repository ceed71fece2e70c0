"""Helpers for tests of the screens that compare generated texts in columns."""

from engine.generation.generate import TokenEvent
from tests.support.analysis import painted_lines
from tests.support.pilot import text_of, until


async def until_columns_ended(pilot, screen):
    await until(pilot, lambda: all(slot.done_event or slot.failure for slot in screen.slots))
    await pilot.pause()


def column_lines(screen):
    return painted_lines(screen.query_one("GenerationColumns"))


def columns_text(screen):
    return "\n".join(column_lines(screen))


def note_text(screen):
    return text_of(screen.query_one("#note")).strip()


def generated_words(output):
    return [event.text for event in output.events if isinstance(event, TokenEvent)]
