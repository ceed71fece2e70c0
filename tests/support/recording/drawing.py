"""Drawing of terminal screens with Pillow, and an animated GIF of them."""

import itertools
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tests.support.recording.frames import Cell, Frame, Screen

FOREGROUND, BACKGROUND = "d8d4cc", "121212"
"""Default colours of the terminal."""
NAMED_COLORS = {"black": "1c1c1c", "red": "d75f5f", "green": "87af5f", "brown": "d7af5f", "blue": "5f87d7"}
NAMED_COLORS |= {"magenta": "af87d7", "cyan": "5fafaf", "white": "d8d4cc"}
PADDING = 12
NUM_COLORS = 128
"""Colours of the palette, which includes the shades at the edges of letters."""
FONT_SIZE = 16
FONT_FILES = {
    (False, False): "DejaVuSansMono.ttf",
    (True, False): "DejaVuSansMono-Bold.ttf",
    (False, True): "DejaVuSansMono-Oblique.ttf",
    (True, True): "DejaVuSansMono-BoldOblique.ttf",
}
"""File of the font for bold and italic text."""
FIRST_BRAILLE, FIRST_EIGHTH, LAST_EIGHTH = 0x2800, 0x2588, 0x258F
BRAILLE_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of the dot of each bit of a braille character."""


@cache
def _font(bold: bool, italic: bool) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FONT_FILES[bold, italic], FONT_SIZE)


@cache
def cell_size() -> tuple[int, int]:
    """Return width and height of a cell in pixels."""
    font = _font(False, False)
    return round(font.getlength("█")), sum(font.getmetrics())


def picture_size(screen: Screen) -> tuple[int, int]:
    """Return width and height of the picture of a screen in pixels."""
    width, height = cell_size()
    return 2 * PADDING + width * len(screen[0]), 2 * PADDING + height * len(screen)


def draw_screen(screen: Screen) -> Image.Image:
    """Return a picture of a screen."""
    picture = Image.new("RGB", picture_size(screen), f"#{BACKGROUND}")
    width, height = cell_size()
    for row, cells in enumerate(screen):
        for column, cell in enumerate(cells):
            if cell != Cell(" ", "default", "default"):
                picture.paste(_draw_cell(cell), (PADDING + column * width, PADDING + row * height))
    return picture


@cache
def _draw_cell(cell: Cell) -> Image.Image:
    width, height = cell_size()
    picture = Image.new("RGB", (width, height), _color(cell.background, BACKGROUND))
    draw = ImageDraw.Draw(picture)
    color = _color(cell.foreground, FOREGROUND)
    code = ord(cell.text[0]) if cell.text else 0x20
    if FIRST_EIGHTH <= code <= LAST_EIGHTH:  # a font leaves gaps between columns, and none between rows
        eighths = LAST_EIGHTH + 1 - code
        draw.rectangle((0, 1, round(width * eighths / 8) - 1, height - 2), fill=color)
    elif FIRST_BRAILLE < code <= FIRST_BRAILLE + 0xFF:
        _draw_braille(draw, code - FIRST_BRAILLE, color)
    else:
        draw.text((0, 0), cell.text, font=_font(cell.bold, cell.italic), fill=color)
    if cell.underlined:
        draw.line((0, height - 2, width, height - 2), fill=color)
    return picture


def _draw_braille(draw: ImageDraw.ImageDraw, dots: int, color: str) -> None:
    """Draw dots at equal distances, also across cells, so that curves are smooth."""
    width, height = cell_size()
    for bit, (column, row) in enumerate(BRAILLE_DOTS):
        if dots >> bit & 1:
            x, y = round((column + 0.5) * width / 2), round((row + 0.5) * height / 4)
            draw.rectangle((x - 1, y - 1, x + 1, y + 1), fill=color)


def _color(name: str, default: str) -> str:
    """Return a colour as Pillow reads it; `name` is `RRGGBB`, "default" or a name of pyte."""
    return f"#{default if name == 'default' else NAMED_COLORS.get(name.removeprefix('bright'), name)}"


def write_gif(frames: Sequence[Frame], path: Path) -> None:
    """Write an animated GIF of `frames`."""
    pictures = [draw_screen(frame.screen) for frame in frames]
    encode_gif(pictures, [max(20, round(100 * frame.seconds) * 10) for frame in frames], path)


def encode_gif(pictures: Sequence[Image.Image], milliseconds: Sequence[int], path: Path) -> None:
    """Write pictures with one palette as an animated GIF that repeats for ever; unchanged pixels are transparent."""
    palette = _common_palette(pictures)
    indexed = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    changes = [indexed[0], *(_changed_pixels(*pair) for pair in itertools.pairwise(indexed))]
    options: dict[str, Any] = {"loop": 0, "disposal": 1, "transparency": NUM_COLORS, "optimize": False}
    changes[0].save(path, save_all=True, append_images=changes[1:], duration=list(milliseconds), **options)


def _changed_pixels(before: Image.Image, after: Image.Image) -> Image.Image:
    """Return `after` with the transparent colour for each pixel that is the same in `before`."""
    old, new = np.asarray(before), np.asarray(after)
    picture = Image.fromarray(np.where(old == new, NUM_COLORS, new).astype(np.uint8), "P")
    picture.putpalette(after.getpalette() or ())
    return picture


def _common_palette(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return an image whose palette fits all pictures: it is chosen from every few of them, one above the other."""
    samples = pictures[:: max(1, len(pictures) // 12)]
    width, height = samples[0].size
    stacked = Image.new("RGB", (width, height * len(samples)))
    for index, sample in enumerate(samples):
        stacked.paste(sample, (0, index * height))
    return stacked.quantize(NUM_COLORS, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
