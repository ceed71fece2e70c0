"""Bytes of the tokens of Hugging Face tokenizers, whose vocabularies write them in two ways."""

import re
from collections.abc import Mapping, Sequence

from engine.data.tokenizers.bytes import byte_characters

SPACE_MARK = "\N{LOWER ONE EIGHTH BLOCK}"
"""Mark that stands for a space in vocabularies of SentencePiece."""
BYTE_PATTERN = re.compile(r"<0x([0-9A-F]{2})>")
"""Token of a single byte in vocabularies of SentencePiece."""
_NUM_BYTES = 256


def decode_vocabulary(
    names: Sequence[str | None], added_tokens: Mapping[int, str], *, is_byte_level: bool
) -> list[bytes]:
    """Return the bytes of each token.

    Args:
        names: Token of each id as the vocabulary writes it; None for ids without a token.
        added_tokens: Tokens by id that are written as plain text, such as special tokens.
        is_byte_level: True for a byte-level vocabulary, False for one of SentencePiece.
    """
    # Each character becomes the one with the number of its byte; others below 256 become one beyond, which fails.
    translation = dict.fromkeys(range(_NUM_BYTES), chr(_NUM_BYTES)) | {
        ord(character): chr(byte) for character, byte in byte_characters().items()
    }
    tokens = []
    for id, name in enumerate(names):
        if id in added_tokens:
            token = added_tokens[id].encode(errors="replace")
        elif name is None:
            token = b""
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
