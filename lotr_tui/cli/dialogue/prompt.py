"""Prompt of an answer or of a scene: the lines that come before it."""

from dataclasses import replace

from engine.data.scripts import Turn
from engine.data.speakers import STRANGER
from engine.generation.prompt import EncodedPrompt, encode_prompt
from engine.models.dialogue import DialogueModel
from lotr_tui.cli.dialogue.script import parse_script


def read_prompt(prompt: str | None, model: DialogueModel, speaker: str = STRANGER) -> tuple[list[Turn], EncodedPrompt]:
    """Return the lines of a prompt and its tokens; a prompt of None has none. `speaker` says a line without a name.

    Raises:
        PromptError: If the prompt is empty, or a name has no text.
    """
    if prompt is None:
        return [], EncodedPrompt("", (), ())
    turns = parse_script(prompt, model.cast, speaker)
    return turns, replace(encode_prompt(" ".join(turn.text for turn in turns), model.tokenizer), text=prompt)
