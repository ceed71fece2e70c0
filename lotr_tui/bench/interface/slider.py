"""Latency from a step of the temperature slider to the new bars, for a small and for a large vocabulary."""

import tempfile
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from string import ascii_lowercase

import numpy as np
from safetensors.numpy import save_file

from engine.config import Config
from engine.data.tokenizers.base import EOS, UNK
from engine.data.tokenizers.loading import VOCABULARY_FILE
from engine.data.tokenizers.words import WordTokenizer
from engine.models.decoders import weight_shapes
from engine.presets import get_preset
from engine.runs.directory import CONFIG_FILE, MODEL_FILE
from lotr_tui.bench.measurement import Measurement, latency_percentile
from lotr_tui.bench.programs import PROMPT, SESSION_COMMAND, run_in_terminal
from lotr_tui.bench.terminal import Terminal

STEPS_PER_RUN = 40
"""Slider steps in each run."""
RANDOM_VOCABULARY_SIZE = 10_000
_LOWER_KEY, _RAISE_KEY = b"\x1b[18~", b"\x1b[19~"  # F7, F8


def measure_slider(repeat: int) -> Iterator[Measurement]:
    """Measure steps by F7 and F8 on a terminal that is wide enough for the bars."""
    with tempfile.TemporaryDirectory() as folder:
        run = write_random_run(Path(folder) / "random", RANDOM_VOCABULARY_SIZE)
        small: list[float] = []
        large: list[float] = []
        for _ in range(repeat):
            with run_in_terminal(SESSION_COMMAND, 160, 45) as terminal:
                small += step_latencies(terminal, PROMPT)
            with run_in_terminal([*SESSION_COMMAND, "--run", str(run)], 160, 45) as terminal:
                large += step_latencies(terminal, "aaa aab aac")
    yield latency_percentile("slider step to the new bars, bundled model", small, 50)
    yield latency_percentile(f"slider step to the new bars, {RANDOM_VOCABULARY_SIZE:,} words", large, 100)


def step_latencies(terminal: Terminal, prompt: str) -> list[float]:
    """Step up and down, and return the seconds until the bars show new probabilities after each step.

    Of all that a step changes, only the bars have percent signs.
    """
    terminal.write(prompt.encode())
    terminal.read_until_quiet(1, 5)
    latencies = []
    for step in range(STEPS_PER_RUN):
        latencies.append(terminal.press(_RAISE_KEY if step % 20 < 10 else _LOWER_KEY, "%"))
        terminal.read_until_quiet(0.2, 1)  # a search of words may refine the bars
    return latencies


def write_random_run(path: Path, vocabulary_size: int, config: Config | None = None) -> Path:
    """Write an untrained run of a size, by default the preset's, with a vocabulary of made-up words.

    Returns:
        `path`.
    """
    config = (config or get_preset("default")).with_values(tokenizer="words")
    words = ["".join(letters) for letters in product(ascii_lowercase, repeat=3)][: vocabulary_size - 2]
    tokenizer = WordTokenizer((UNK, EOS, *words))
    rng = np.random.default_rng(0)
    shapes = weight_shapes(config.model, len(tokenizer))
    weights = {name: rng.normal(0, 0.1, shape).astype(np.float32) for name, shape in shapes.items()}
    path.mkdir()
    (path / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
    (path / VOCABULARY_FILE).write_text(tokenizer.to_json(), encoding="utf-8")
    save_file(weights, path / MODEL_FILE)
    return path
