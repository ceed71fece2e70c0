"""Clean-up of dialogue lines for tokenizers that keep punctuation."""

import re

_COMMA_AFTER_SENTENCE = re.compile(r"""([.!?…]|[.!?…]["')]+(?=\s))\s*,[\s,]*""")
"""A comma that a stage direction left behind a sentence, as in "death! , What", but not the one in `"Go!", he said`."""
_SPACE_BEFORE_COMMA = re.compile(r"\s+,[\s,]*")
_LEADING_COMMAS = re.compile(r"^[\s,]+")


def repair_dialogue(line: str) -> str:
    """Return a line without the marks that removed stage directions left behind, as in "a fish , so juicy".

    A comma after the end of a sentence is dropped; any other comma after a space joins the word before it.
    """
    if "," not in line:
        return line
    line = _LEADING_COMMAS.sub("", line)
    line = _COMMA_AFTER_SENTENCE.sub(r"\1 ", line)
    return _SPACE_BEFORE_COMMA.sub(", ", line).strip()
