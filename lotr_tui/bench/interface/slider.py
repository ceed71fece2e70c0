"""From a step of the temperature to the bars that follow it, with the default model and with 10,000 words."""

import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from safetensors.numpy import save_file

from engine.config import preset
from engine.data.vocabulary import EOS, UNK, Vocabulary
from engine.models.numpy_lstm import weight_shapes
from engine.runs.store import CONFIG, MODEL, VOCABULARY
from lotr_tui.bench.figures import Figure, percentile_95
from lotr_tui.bench.subjects import PROMPT, SESSION_COMMAND, running
from lotr_tui.bench.terminal import Terminal

STEPS = 40
"""A run."""
MANY_WORDS = 10_000
_COOLER, _HOTTER = b"\x1b[18~", b"\x1b[19~"


def slider(repeat: int) -> Iterator[Figure]:
    """Steps of F7 and F8 on a terminal where the bars are seen."""
    with tempfile.TemporaryDirectory() as folder:
        run = write_random_run(Path(folder) / "random", MANY_WORDS)
        small: list[float] = []
        large: list[float] = []
        for _ in range(repeat):
            with running(SESSION_COMMAND, 160, 45) as terminal:
                small += _step(terminal, PROMPT)
            with running([*SESSION_COMMAND, "--run", str(run)], 160, 45) as terminal:
                large += _step(terminal, "aaa aab aac")
    yield percentile_95("slider step to the new bars, bundled model", small, 50)
    yield percentile_95(f"slider step to the new bars, {MANY_WORDS:,} words", large, 100)


def _step(terminal: Terminal, prompt: str) -> list[float]:
    """Up and down; the line under the bars names the temperature that they are drawn for."""
    terminal.write(prompt.encode())
    terminal.settle(0.5, 3)
    hundredths = 80
    latencies = []
    for number in range(STEPS):
        up = number % 20 < 10
        hundredths += 5 if up else -5
        bars = f"─ temperature {hundredths / 100:.2f}"
        latencies.append(terminal.press(_HOTTER if up else _COOLER, bars))
        terminal.settle(0.03, 0.3)
    return latencies


def write_random_run(folder: Path, words: int) -> Path:
    """A run of the default's size that was never trained, with a vocabulary of so many made-up words."""
    config = preset("default")
    made_up = ["".join(letters) for letters in product(ascii_lowercase, repeat=3)][: words - 2]
    vocabulary = Vocabulary((UNK, EOS, *made_up))
    chance = np.random.default_rng(0)
    shapes = weight_shapes(config.model, len(vocabulary))
    weights = {name: chance.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    folder.mkdir()
    (folder / CONFIG).write_text(config.to_json(), encoding="utf-8")
    (folder / VOCABULARY).write_text(vocabulary.to_json(), encoding="utf-8")
    save_file(weights, folder / MODEL)
    return folder
