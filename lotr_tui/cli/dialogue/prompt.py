"""Prompt of an answer or of a scene: the lines that come before it."""

from dataclasses import replace

from engine.data.tokenizers.base import Tokenizer
from engine.generation.prompt import EncodedPrompt, encode_prompt
from engine.generation.turns import Turn
from lotr_tui.cli.dialogue.script import parse_script
from lotr_tui.cli.generate_console import report_unknown_text
from lotr_tui.session.conversation.cast import speaking_role


def read_prompt(prompt: str | None, tokenizer: Tokenizer, speaking_as: str = "") -> tuple[list[Turn], EncodedPrompt]:
    """Return the lines of a prompt and its tokens, and report on stderr the words that the model does not know.

    A prompt of None has no lines. A first line without a name is said by the member `speaking_as` of the cast, or by a
    stranger if that is empty.

    Raises:
        PromptError: If no token of the prompt is known, or a name has no text.
    """
    if prompt is None:
        return [], EncodedPrompt("", (), ())
    turns = parse_script(prompt, tokenizer.cast, speaking_role(tokenizer.cast, speaking_as))
    encoded = replace(encode_prompt(" ".join(turn.text for turn in turns), tokenizer), text=prompt)
    report_unknown_text(encoded, tokenizer)
    return turns, encoded
