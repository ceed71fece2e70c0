"""Speakers who are likely to say the text of a comparison."""

from engine.errors import describe_error
from engine.generation.turns import SpeakerProb
from lotr_tui.background_task import run_in_thread
from lotr_tui.screens.comparison.screen import GenerationColumnsScreen
from lotr_tui.session.columns import PromptContext
from lotr_tui.session.next_tokens import find_turn, read_speakers
from lotr_tui.session.read_text import TextReader, to_prompt_line
from lotr_tui.session.session_model import SessionModel

FINDING_SPEAKER = "finding out who is likely to answer …"
"""Text of a column whose speaker is not known yet."""


def rank_speakers(session_model: SessionModel, prompt: str, context: PromptContext) -> list[SpeakerProb]:
    """Return who may answer a prompt in its context, likeliest first, for a model that knows speakers.

    For a prompt that is continued, return who may begin a scene.
    """
    line = to_prompt_line(prompt) if context.is_answer else ""
    previous = context.previous_reply if context.is_answer else None
    return read_speakers(TextReader(), find_turn(session_model, line, previous, context.roles))


async def rank_speakers_in_thread(screen: GenerationColumnsScreen, prompt: str) -> list[SpeakerProb]:
    """Return who may answer a prompt of a screen; if the model fails, show the error and return an empty list."""
    try:
        return await run_in_thread(rank_speakers, screen.session_model, prompt, screen.prompt_context)
    except Exception as error:
        screen.show_note(f"Cannot rank the speakers: {describe_error(error)}", is_problem=True)
        return []
