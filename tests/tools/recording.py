"""Record the session in the README: `python -m tests.tools.recording [FILE.gif]`.

A shell in a pseudo-terminal starts the real program, in which keys are pressed. The seed of the replies is fixed.
Loading is cut, and the training is shown in fewer seconds than it takes. Needs SmolLM2 (`lotr-tui fetch smollm2`) and
the font DejaVu Sans Mono.
"""

import itertools
import os
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import numpy as np
import pyte
from PIL import Image, ImageDraw, ImageFont

from tests.support.files import CHECKOUT
from tests.support.terminal import (
    INPUT_READY_TEXT,
    MODEL_READY_TEXT,
    Terminal,
    answer_first_question,
    link_fetched_models,
)

TRAINING_SPEED = 0.1
FRAME_INTERVAL = 0.1  # minimum seconds between two frames
FOREGROUND, BACKGROUND = "d8d4cc", "121212"
PADDING, NUM_COLORS = 12, 128
FONTS = [ImageFont.truetype(f"DejaVuSansMono{style}.ttf", 16) for style in ("", "-Bold")]
WIDTH, HEIGHT = round(FONTS[0].getlength("█")), sum(FONTS[0].getmetrics())
FIRST_BRAILLE, FIRST_EIGHTH, LAST_EIGHTH = 0x2800, 0x2588, 0x258F
BRAILLE_DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))
"""Column and row of the dot of each bit of a braille character."""
CTRL_N, CTRL_T, ENTER, ESCAPE = b"\x0e", b"\x14", b"\r", b"\x1b"
DOWN, HOTTER = b"\x1b[B", b"\x1b[1;5A"


class Recorder:
    """Keys for a program in a terminal, and its screens: the time of the recording and rows of pyte's characters."""

    def __init__(self, terminal):
        self._terminal = terminal
        self._screen = pyte.Screen(*terminal.size)
        self._stream = pyte.ByteStream(self._screen)
        self._screens, self._time, self._clock = [], 0.0, time.monotonic()
        self.speed = 1.0  # seconds of the recording in a second of the clock; with 0, no screen is taken

    def wait(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._read(min(left, 0.02))

    def wait_until(self, text, is_shown=True):
        """Record until a text is on the screen, or no longer on it."""
        end = time.monotonic() + 900
        while (text in "\n".join(self._screen.display)) != is_shown:
            if time.monotonic() > end:
                raise TimeoutError("\n".join([f"waited for {text!r}:", *self._screen.display]))
            self._read(0.02)

    def press(self, keys, times=1, pause=0.25):
        for _ in range(times):
            self._terminal.write(keys)
            self.wait(pause)

    def type(self, text):
        for character in text:
            self.press(character.encode(), pause=0.07)

    def frames(self):
        """Return the screens, each with the seconds for which it is shown, without repetitions."""
        frames = []
        for (start, screen), (end, _) in itertools.pairwise([*self._screens, (self._time, None)]):
            if frames and frames[-1][0] == screen:
                frames[-1][1] += end - start
            elif end > start:
                frames.append([screen, end - start])
        return frames

    def _read(self, timeout):
        output, now = self._terminal.read(timeout), time.monotonic()
        self._time += self.speed * (now - self._clock)
        self._clock = now
        if output:
            self._stream.feed(output)
        is_due = not self._screens or self._time - self._screens[-1][0] >= FRAME_INTERVAL
        if is_due and self._screen.dirty and self.speed:
            self._screen.dirty.clear()
            rows, columns = range(self._screen.lines), range(self._screen.columns)
            screen = tuple(tuple(self._screen.buffer[row][column] for column in columns) for row in rows)
            self._screens.append((self._time, screen))


def draw_screen(screen):
    size = 2 * PADDING + WIDTH * len(screen[0]), 2 * PADDING + HEIGHT * len(screen)
    picture = Image.new("RGB", size, f"#{BACKGROUND}")
    for row, chars in enumerate(screen):
        for column, char in enumerate(chars):
            picture.paste(_draw_char(char), (PADDING + column * WIDTH, PADDING + row * HEIGHT))
    return picture


@cache
def _draw_char(char):
    names = ((char.fg, FOREGROUND), (char.bg, BACKGROUND))[:: -1 if char.reverse else 1]
    color, background = (f"#{default if name == 'default' else name}" for name, default in names)
    picture = Image.new("RGB", (WIDTH, HEIGHT), background)
    draw, code = ImageDraw.Draw(picture), ord(char.data[0]) if char.data else 0x20
    if FIRST_EIGHTH <= code <= LAST_EIGHTH:  # a font leaves gaps between columns, and none between rows
        draw.rectangle((0, 1, round(WIDTH * (LAST_EIGHTH + 1 - code) / 8) - 1, HEIGHT - 2), fill=color)
    elif FIRST_BRAILLE < code <= FIRST_BRAILLE + 0xFF:
        for bit, (column, row) in enumerate(BRAILLE_DOTS):  # at equal distances across cells, so that curves are smooth
            if (code - FIRST_BRAILLE) >> bit & 1:
                x, y = round((column + 0.5) * WIDTH / 2), round((row + 0.5) * HEIGHT / 4)
                draw.rectangle((x - 1, y - 1, x + 1, y + 1), fill=color)
    else:
        draw.text((0, 0), char.data, font=FONTS[char.bold], fill=color)
    if char.underscore:
        draw.line((0, HEIGHT - 2, WIDTH, HEIGHT - 2), fill=color)
    return picture


def write_gif(frames, path):
    """Write an animated GIF of one palette that repeats for ever; Pillow stores only what changes."""
    pictures = [draw_screen(screen) for screen, _ in frames]
    milliseconds = [max(20, round(100 * seconds) * 10) for _, seconds in frames]
    samples = [np.asarray(picture) for picture in pictures[:: max(1, len(pictures) // 12)]]
    options = {"method": Image.Quantize.MAXCOVERAGE, "dither": Image.Dither.NONE}
    palette = Image.fromarray(np.concatenate(samples)).quantize(NUM_COLORS, **options)
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    first.save(path, save_all=True, append_images=others, duration=milliseconds, loop=0, disposal=1, optimize=False)


def record(recorder):
    """Talk to Gandalf, move the temperature, inspect the text, and train a model."""
    recorder.wait_until("$ ")
    recorder.wait(0.5)
    recorder.type("lotr-tui")
    recorder.press(ENTER, pause=0)
    recorder.wait_until(INPUT_READY_TEXT)
    recorder.speed = 0
    recorder.wait_until(MODEL_READY_TEXT)
    recorder.press(b"/set seed 5\r", pause=1)
    recorder.speed = 1
    recorder.wait(0.8)
    for line, warmer, key in (("Hello, Gandalf.", 0, ENTER), ("Where is the Ring?", 0, ENTER), ("", 5, CTRL_N)):
        recorder.type(line)
        recorder.press(HOTTER, times=warmer, pause=0.3)
        recorder.press(key, pause=1)
        recorder.wait_until("esc stop", is_shown=False)
        recorder.wait(1.2)
    recorder.press(ESCAPE, pause=0.5)  # to the conversation, where letters are keys
    recorder.press(b"l", pause=3)
    recorder.press(ESCAPE, pause=0.5)
    recorder.press(CTRL_T, pause=1.2)
    recorder.press(DOWN, times=2, pause=0.5)  # past a conversation and `default`, which take longer
    recorder.press(ENTER)
    recorder.wait_until("training tiny")
    recorder.press(CTRL_T)
    recorder.wait_until("space pause")
    recorder.speed = TRAINING_SPEED
    recorder.wait_until("finished")
    recorder.speed = 1
    recorder.wait(3)


def main():
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "assets" / "recording.gif"
    os.environ |= {"PS1": "$ ", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    shell = ["/bin/bash", "--noprofile", "--norc", "-i"]
    with tempfile.TemporaryDirectory() as home:
        answer_first_question(home)
        link_fetched_models(home)
        with Terminal(shell, 110, 32, home).spawn() as terminal:
            recorder = Recorder(terminal)
            record(recorder)
    frames = recorder.frames()
    write_gif(frames, path)
    seconds, size = sum(seconds for _, seconds in frames), path.stat().st_size / 1e6
    print(f"{path}: {len(frames)} frames, {seconds:.1f} s, {size:.2f} MB")


if __name__ == "__main__":
    main()
