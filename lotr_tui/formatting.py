"""Small phrases that several readers share."""

import math
from typing import TYPE_CHECKING

from rich.cells import cell_len, set_cell_size

from engine.errors import printable

if TYPE_CHECKING:  # with numpy, which the first paint does without
    from engine.generation.generate import Done
    from engine.runs.store import RunSummary

NAME = 24
"""Columns for the name of a run; most names fit, and so does the row in a narrow dialog."""


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


def ending(done: "Done") -> str:
    """Why a text ended."""
    return {
        "eos": "ended by <eos>",
        "length": f"stopped at {done.tokens} words",
        "stop": "ended by a stop word",
        "cancelled": "stopped by you",
        "error": "broken off by an error",
    }[done.reason]


def run_row(run: "RunSummary") -> str:
    """A run that has a model, in a list of them."""
    return model_row(run.name, run.state, run.valid_perplexity)


def model_row(name: str, about: str, valid_perplexity: float | None) -> str:
    """A model in a list of them."""
    name = printable(name)
    if cell_len(name) > NAME:
        name = f"{set_cell_size(name, NAME - 1)}…"
    valid = "" if valid_perplexity is None else f" valid {valid_perplexity:6.1f}"
    return f"{set_cell_size(name, NAME)} {about:9}{valid}"


def ago(seconds: float) -> str:
    """A stretch of time roughly: 5 s, 3 min, 2 h, 4 d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
