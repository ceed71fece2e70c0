"""Bars of block characters, to an eighth of a cell."""

_EIGHTHS: tuple[str, ...] = ("", *"▏▎▍▌▋▊▉")


def bar(share: float, width: int) -> str:
    """A bar over that share of `width` cells, from none of them to all."""
    eighths: int = round(max(0.0, min(share, 1.0)) * width * 8)
    whole, part = divmod(eighths, 8)
    return "█" * whole + _EIGHTHS[part]
