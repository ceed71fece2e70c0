"""Names of tokens; the tokens of an open vocabulary are parts of words and may be white space."""

from engine.analysis.tokenized_text import TokenizedText
from engine.data.tokenizers.base import UNK, Tokenizer
from lotr_tui.formatting import LINE_END_MARK, SPACE_MARK, format_lone_token
from lotr_tui.screens.text.layout import Page

PART_SEPARATOR = "|"
"""Mark between the tokens of a word."""


def visible_part(text: str) -> str:
    """Return a token of a text without the space before a word; spaces alone and line ends as marks."""
    if text.endswith("\n"):
        return LINE_END_MARK
    return text.strip(" ") or SPACE_MARK * len(text)


def part_names(tokens: TokenizedText, tokenizer: Tokenizer) -> list[str]:
    """Return the name of each token of a text: "·wiz" and "ard" for " wizard", "😀" and "<0x9F>" for two bytes.

    The space between the name of a speaker and the text is no part of the text, but of its first token.
    """
    names = []
    for index, id in enumerate(tokens.ids.tolist()):
        text, token = tokens[index] or tokenizer.tokens[id], tokenizer.tokens[id]
        space = " " if index in tokens.heads and token.startswith(" ") and not text.startswith(" ") else ""
        names.append(LINE_END_MARK if text.endswith("\n") else format_lone_token(space + text))
    return names


def token_names(page: Page, tokenizer: Tokenizer) -> list[str]:
    """Return the name of each token of a page of tokens: words as the page shows them, or else `part_names`."""
    if page.tokens.unk_id is None:
        return part_names(page.tokens, tokenizer)
    return [page.text[start:end] for start, end in zip(page.starts, page.ends, strict=True)]


def next_token_name(tokenizer: Tokenizer, id: int) -> str:
    """Return the name of a possible next token, which is `<unk>` for all words outside the vocabulary."""
    if id == tokenizer.unk_id:
        return UNK
    return format_lone_token(tokenizer.tokens[id], ends_text=tokenizer.reads_line_ends)


def describe_word_around(tokens: TokenizedText, token: int) -> str:
    """Return ` of "…"` with the word that contains a token, or an empty text if the token is a whole word."""
    word = tokens.word_index(token)
    is_longer = tokens.word_ends[word] - tokens.word_starts[word] > 1
    return f' of "{visible_part(tokens.word(word))}"' if is_longer else ""
