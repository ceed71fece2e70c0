"""Small phrases that several readers share."""

import math

from engine.sampling import Done


def duration(seconds: float) -> str:
    """Seconds as 0:42, 3:05 or 1:02:03; "-" for what is no number."""
    if not math.isfinite(seconds):
        return "-"
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def perplexity(value: float) -> str:
    """A perplexity to one digit, a wild one to its size; "-" for what is no number."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.1f}" if value < 99_999.95 else f"{value:.1e}"


def ending(done: Done) -> str:
    """Why a text ended."""
    return {
        "eos": "ended by <eos>",
        "length": f"stopped at {done.tokens} words",
        "stop": "ended by a stop word",
        "cancelled": "stopped by you",
        "error": "broken off by an error",
    }[done.reason]
