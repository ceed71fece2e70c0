"""Tests of the recording in the README, and of the script that makes it."""

import pytest
from PIL import Image

from tests.support.terminal import Terminal
from tests.support.files import CHECKOUT
from tests.support.recording.drawing import cell_size, write_gif
from tests.support.recording.frames import Cell, Frame, Recorder

RECORDING = CHECKOUT / "assets" / "recording.gif"
MAX_BYTES = 2_000_000
SHELL_SCRIPT = r"printf 'ready'; read -r line; printf '\033[38;2;255;0;0m\342\226\210\033[0m %s' \"$line\"; sleep 60"


def durations(path):
    """Return the milliseconds of each frame."""
    with Image.open(path) as gif:
        milliseconds = []
        for number in range(gif.n_frames):
            gif.seek(number)
            milliseconds.append(gif.info["duration"])
        return milliseconds


def test_the_readme_shows_a_recording_that_pages_can_load():
    assert f"](assets/{RECORDING.name})" in (CHECKOUT / "README.md").read_text("utf-8")
    assert RECORDING.stat().st_size < MAX_BYTES
    milliseconds = durations(RECORDING)
    assert 20_000 <= sum(milliseconds) <= 45_000
    assert len(milliseconds) > 100


def test_a_recording_has_each_change_of_the_screen_once_with_its_time(tmp_path):
    with Terminal(["/bin/sh", "-c", SHELL_SCRIPT], 20, 3, tmp_path).spawn() as terminal:
        recorder = Recorder(terminal, 20, 3)
        recorder.wait_until("ready")
        recorder.wait(0.5)
        with recorder.compress(0.2):
            recorder.press(b"hello\r", pause=0.4)
            recorder.wait(0.4)
        recorder.wait(0.3)
        frames = recorder.frames()
    shown = ["".join(cell.text for cell in frame.screen[0]).rstrip() for frame in frames]
    assert "ready" in shown[:2]  # the first screen may be empty
    assert sum(frame.seconds for frame in frames) == pytest.approx(1, abs=0.3)
    assert Cell("█", "ff0000", "default") in frames[-1].screen[1]
    assert len({frame.screen for frame in frames}) == len(frames)


def test_the_picture_of_a_screen_has_its_colours(tmp_path):
    blank, red = Cell(" ", "default", "default"), Cell("█", "ff0000", "default")
    screens = [((blank, blank),), ((blank, red),)]
    try:
        cell_size()
    except OSError:
        pytest.skip("needs the font DejaVu Sans Mono")
    path = tmp_path / "two.gif"
    write_gif([Frame(screens[0], 0.5), Frame(screens[1], 1.25)], path)
    assert durations(path) == [500, 1250]
    with Image.open(path) as gif:
        gif.seek(1)
        width, height = cell_size()
        picture = gif.convert("RGB")
        assert picture.getpixel((12 + width + width // 2, 12 + height // 2)) == (255, 0, 0)
        assert picture.getpixel((12 + width // 2, 12 + height // 2)) == (0x12, 0x12, 0x12)
