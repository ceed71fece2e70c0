"""Record the session in the README: `python -m tests.support.recording [FILE.gif]`.

A shell in a pseudo-terminal starts the real program, in which keys are pressed. The seed of the replies is fixed.
Loading is cut, and the training is shown in fewer seconds than it takes.
"""

import os
import sys
import tempfile
from pathlib import Path

from tests.support.files import CHECKOUT
from tests.support.recording.drawing import write_gif
from tests.support.recording.frames import Recorder
from tests.support.terminal import Terminal

WIDTH, HEIGHT = 110, 32
SHELL = ["/bin/bash", "--noprofile", "--norc", "-i"]
SEED = "5"
TRAINING_SECONDS = 9.0
"""Seconds of the recording for the training, which takes a quarter of a minute or more."""
CTRL_E, CTRL_N, CTRL_Q, CTRL_T, ENTER, ESCAPE = b"\x05", b"\x0e", b"\x11", b"\x14", b"\r", b"\x1b"
F8 = b"\x1b[19~"


def record(recorder: Recorder) -> None:
    """Talk to Gandalf, move the temperature, inspect the text, and train a model."""
    recorder.wait_until("$ ")
    recorder.wait(0.5)
    recorder.type("lotr-tui")
    recorder.press(ENTER, pause=0)
    recorder.wait_until("Type here")
    recorder.is_paused = True
    recorder.wait_until("Say hello")
    recorder.press(f"/seed {SEED}\r".encode(), pause=1)
    recorder.is_paused = False
    recorder.wait(0.8)
    for line in ("Hello, Gandalf.", "Where is the Ring?"):
        recorder.type(line)
        recorder.press(ENTER, pause=1)
        recorder.wait_until_gone("esc stop")
        recorder.wait(1.2)
    recorder.press(F8, times=5, pause=0.3)
    recorder.wait(0.8)
    recorder.press(CTRL_N, pause=1)
    recorder.wait_until_gone("esc stop")
    recorder.wait(1.2)
    recorder.press(CTRL_E, pause=3)
    recorder.press(ESCAPE, pause=0.5)
    recorder.press(CTRL_T, pause=1.2)
    recorder.press(ENTER)
    recorder.wait_until("training tiny")
    recorder.press(CTRL_T)
    recorder.wait_until("space pause")
    with recorder.compress(TRAINING_SECONDS):
        recorder.wait_until("finished")
    recorder.wait(3)


def main() -> None:
    """Write the recording to the file that the command line names, by default the one in the README."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else CHECKOUT / "assets" / "recording.gif"
    os.environ |= {"PS1": "$ ", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with tempfile.TemporaryDirectory() as home, Terminal(SHELL, WIDTH, HEIGHT, Path(home)).spawn() as terminal:
        recorder = Recorder(terminal, WIDTH, HEIGHT)
        record(recorder)
        frames = recorder.frames()
    write_gif(frames, path)
    seconds = sum(frame.seconds for frame in frames)
    print(f"{path}: {len(frames)} frames, {seconds:.1f} s, {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
