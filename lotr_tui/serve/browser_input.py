"""Input from a browser: messages of the page, with limits on their size and rate."""

import json
import re
import time
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

MAX_MESSAGE_BYTES = 4 << 20
"""Longest message that is received; a longer one closes the connection."""
MAX_PASTE_BYTES = 256 << 10
MAX_KEYS_BYTES = 16 << 10
"""Longest input in one message that is no paste."""
KEYS_PER_SECOND, BURST_KEYS = 300.0, 600.0
"""Keys and mouse events: the sustained rate, ten times what a keyboard repeats, and those at once above it."""
MAX_WIDTH, MAX_HEIGHT = 600, 300
"""Largest terminal in cells; a layout takes time and memory in proportion."""
_PASTE = re.compile(r"\x1b\[200~([^\x1b]*)\x1b\[201~")
_EVENT = re.compile(r"\x1b\[200~[^\x1b]*\x1b\[201~|\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b?.", re.DOTALL)
_MOUSE_MOTION = re.compile(r"\x1b\[<(3[2-9]|[4-6]\d);\d+;\d+[Mm]")


class BrowserMessage(NamedTuple):
    """A valid message of the page."""

    kind: Literal["stdin", "resize", "ping", "focus", "blur"]
    text: str = ""
    size: tuple[int, int] = (0, 0)
    """Columns and rows of a resize."""


def parse_message(data: str) -> BrowserMessage | None:
    """Return the message that `data` holds, or None for anything that the page would not send."""
    try:
        envelope = json.loads(data)
    except (ValueError, RecursionError):
        return None
    match envelope:
        case [("focus" | "blur") as kind, *_]:
            return BrowserMessage(kind)
        case [("stdin" | "ping") as kind, str() as text, *_]:
            return BrowserMessage(kind, text)
        case ["resize", {"width": width, "height": height}, *_]:
            return BrowserMessage("resize", size=(clamp(width, 80, MAX_WIDTH), clamp(height, 24, MAX_HEIGHT)))
    return None


def clamp(value: Any, default: int, maximum: int) -> int:
    """Return a number of cells between 1 and `maximum`; anything that is no whole number becomes `default`."""
    try:
        return min(max(int(value), 1), maximum)
    except (TypeError, ValueError, OverflowError):
        return default


class InputLimiter:
    """Limit on what one browser may type: a rate of events with a burst, and a length of pastes.

    Excess is dropped and not delayed, so that the app can be used again as soon as the flood ends.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._budget, self._updated = BURST_KEYS, clock()

    def refusal(self, text: str) -> str | None:
        """Return None if the app may get `text`, "" to drop it silently, or otherwise a line for the user."""
        size, num_events = len(text.encode(errors="replace")), 1
        if match := _PASTE.fullmatch(text):
            if size > MAX_PASTE_BYTES:
                return f"not pasted: {len(match[1]):,} characters; a paste has at most {MAX_PASTE_BYTES >> 10} KiB"
        elif size > MAX_KEYS_BYTES:
            return f"dropped {size:,} bytes of keys at once; paste long texts instead"
        else:
            num_events = sum(1 for _ in _EVENT.finditer(text))
        now = self._clock()
        self._budget = min(BURST_KEYS, self._budget + KEYS_PER_SECOND * (now - self._updated))
        self._updated = now
        if num_events > self._budget:
            return "" if _MOUSE_MOTION.fullmatch(text) else f"keys dropped: more than {KEYS_PER_SECOND:.0f} per second"
        self._budget -= num_events
        return None
