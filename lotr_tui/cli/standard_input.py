"""Text that a command reads from standard input."""

import sys

from engine.errors import InvalidInputError


def read_standard_input(max_bytes: int | None = None) -> str:
    """Return standard input, with a lone surrogate in the place of each byte that is not UTF-8.

    Raises:
        InvalidInputError: If the input has over `max_bytes` bytes, or is not text.
    """
    # One byte more than allowed, so that endless input ends here.
    content = sys.stdin.buffer.read(-1 if max_bytes is None else max_bytes + 1)
    if b"\0" in content:
        raise InvalidInputError("standard input contains NUL bytes, so it is not text; use a text")
    if max_bytes is not None and len(content) > max_bytes:
        raise InvalidInputError(f"standard input has over {max_bytes:,} bytes; use a part of it")
    return content.decode(errors="surrogateescape")
