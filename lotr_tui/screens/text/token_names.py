"""Names of the tokens of an open vocabulary, which are parts of words and may be white space."""

from engine.analysis.tokenized_text import TokenizedText
from engine.data.tokenizers.base import Tokenizer
from lotr_tui.formatting import LINE_END_MARK, SPACE_MARK, format_lone_token

PART_SEPARATOR = "|"
"""Mark between the tokens of a word."""


def visible_part(text: str) -> str:
    """Return a token of a text without the space before a word; spaces alone and line ends as marks."""
    if text.endswith("\n"):
        return LINE_END_MARK
    return text.strip(" ") or SPACE_MARK * len(text)


def part_names(tokens: TokenizedText, tokenizer: Tokenizer) -> list[str]:
    """Return the name of each token of a text: "·wiz" and "ard" for " wizard", "😀" and "<0x9F>" for two bytes."""
    texts = (tokens[index] or tokenizer.tokens[id] for index, id in enumerate(tokens.ids.tolist()))
    return [LINE_END_MARK if text.endswith("\n") else format_lone_token(text) for text in texts]
