"""Bytes of the tokens of Hugging Face tokenizers, whose vocabularies write them in two ways."""

import re
from collections.abc import Mapping, Sequence

from engine.data.tokenizers.bytes import byte_characters

SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
"""Mark that stands for a space in vocabularies of SentencePiece."""
BYTE_PATTERN = re.compile(r"<0x([0-9A-F]{2})>")
"""Token of a single byte in vocabularies of SentencePiece."""


def decode_vocabulary(
    names: Sequence[str | None], added_tokens: Mapping[int, str], *, is_byte_level: bool
) -> list[bytes]:
    """Return the bytes of each token, given its name in a vocabulary, which is byte-level or else of SentencePiece.

    The name of an id without a token is None. Tokens in `added_tokens`, such as special ones, are plain text.
    """
    # Each character becomes the one with the number of its byte; others below 256 become one beyond, which fails.
    translation = dict.fromkeys(range(256), chr(256)) | {
        ord(char): chr(byte) for char, byte in byte_characters().items()
    }
    tokens = []
    for id, name in enumerate(names):
        if id in added_tokens or name is None:
            token = added_tokens.get(id, "").encode(errors="replace")
        elif is_byte_level:
            try:
                token = name.translate(translation).encode("latin-1")
            except UnicodeEncodeError:
                token = name.encode(errors="replace")
        elif match := BYTE_PATTERN.fullmatch(name):
            token = bytes([int(match[1], 16)])
        else:
            token = name.replace(SPACE_MARK, " ").encode(errors="replace")
        tokens.append(token or f"<unused {id}>".encode())
    return tokens
