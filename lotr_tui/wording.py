"""Small phrases that several readers share."""

from engine.sampling import Done


def duration(seconds: float) -> str:
    """Seconds as 0:42, 3:05 or 1:02:03."""
    whole = max(0, round(seconds))
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02}:{rest % 60:02}" if hours else f"{rest // 60}:{rest % 60:02}"


def ending(done: Done) -> str:
    """Why a text ended."""
    return {
        "eos": "ended by <eos>",
        "length": f"stopped at {done.tokens} words",
        "stop": "ended by a stop word",
        "cancelled": "stopped by you",
        "error": "broken off by an error",
    }[done.reason]


def ago(seconds: float) -> str:
    """A stretch of time roughly: 5 s, 3 min, 2 h, 4 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
