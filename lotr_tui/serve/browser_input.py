"""Input from a browser: messages of the page, with limits on their size and rate."""

import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

MAX_MESSAGE_BYTES = 4 << 20
"""Longest message that is received; a longer one closes the connection."""
MAX_PASTE_BYTES = 256 << 10
"""Longest paste that reaches the app, which uses far less of it."""
MAX_KEYS_BYTES = 16 << 10
"""Longest other input in one message."""
KEYS_PER_SECOND = 300.0
"""Sustained rate of keys and mouse events, ten times what a keyboard repeats."""
BURST_KEYS = 600.0
"""Keys and mouse events at once, above the sustained rate; an app handles them within a second or two."""
MAX_WIDTH, MAX_HEIGHT = 600, 300
"""Largest terminal in cells; a layout takes time and memory in proportion."""
_PASTE = re.compile(r"\x1b\[200~([^\x1b]*)\x1b\[201~")
_EVENT = re.compile(r"\x1b\[200~[^\x1b]*\x1b\[201~|\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|\x1b?.", re.DOTALL)
_MOUSE_MOTION = re.compile(r"\x1b\[<(3[2-9]|[4-6]\d);\d+;\d+[Mm]")

MessageKind = Literal["stdin", "resize", "ping", "focus", "blur"]


@dataclass(frozen=True)
class BrowserMessage:
    """A valid message of the page."""

    kind: MessageKind
    text: str = ""
    """Input for the app, or the text of a ping."""
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
        """Start with a full burst, on a clock in seconds."""
        self._clock = clock
        self._budget = BURST_KEYS
        self._updated = clock()

    def refusal(self, text: str) -> str | None:
        """Return None if the app may get `text`, "" to drop it silently, or otherwise a line for the user."""
        size = len(text.encode(errors="replace"))
        if match := _PASTE.fullmatch(text):
            if size > MAX_PASTE_BYTES:
                return f"not pasted: {len(match[1]):,} characters; a paste has at most {MAX_PASTE_BYTES >> 10} KiB"
            return self._spend(1)
        if size > MAX_KEYS_BYTES:
            return f"dropped {size:,} bytes of keys at once; paste long texts instead"
        refused = self._spend(sum(1 for _ in _EVENT.finditer(text)))
        return "" if refused and _MOUSE_MOTION.fullmatch(text) else refused

    def _spend(self, num_events: int) -> str | None:
        now = self._clock()
        self._budget = min(BURST_KEYS, self._budget + KEYS_PER_SECOND * (now - self._updated))
        self._updated = now
        if num_events > self._budget:
            return f"keys dropped: more than {KEYS_PER_SECOND:.0f} per second"
        self._budget -= num_events
        return None
