"""Sliders of the sampler chain."""

from collections.abc import Iterator, Mapping

from engine.generation.settings import SamplerSettings
from lotr_tui.widgets.slider import Slider

TEMPERATURES = tuple(step / 20 for step in range(41))
TOP_KS = (1, 2, 3, 4, 5, 7, 10, 15, 20, 30, 50, 100, 200, 500, 0)
"""Values of top-k; 0 keeps all words."""
TOP_PS = (*(percent / 100 for percent in range(5, 100, 5)), 0.98, 0.99, 1.0)
MIN_PS = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0)
OFF = "off"
SAMPLE_TOKENS = 30
"""Tokens of a sampled text."""


def read_settings(indices: Mapping[str, int]) -> SamplerSettings:
    """Return the sampler chain for the index of each slider, by its id."""
    return SamplerSettings(
        temperature=TEMPERATURES[indices["temperature"]],
        top_k=TOP_KS[indices["top-k"]],
        top_p=TOP_PS[indices["top-p"]],
        min_p=MIN_PS[indices["min-p"]],
        max_tokens=SAMPLE_TOKENS,
    )


def make_sliders() -> Iterator[Slider]:
    """Yield the four sliders; they leave the model's distribution as it is."""
    yield Slider(
        "temperature",
        [f"{temperature:.2f}" for temperature in TEMPERATURES],
        TEMPERATURES.index(1.0),
        help_line="Divisor of the log-probabilities; ← → change it",
        id="temperature",
    )
    yield Slider(
        "top-k      ",
        [str(top_k or OFF).rjust(4) for top_k in TOP_KS],
        len(TOP_KS) - 1,
        help_line="Number of likeliest words to keep; ← → change it",
        id="top-k",
    )
    yield Slider(
        "top-p      ",
        [(OFF if top_p == 1 else f"{top_p:.2f}").rjust(4) for top_p in TOP_PS],
        len(TOP_PS) - 1,
        help_line="Total probability of the likeliest words to keep; ← → change it",
        id="top-p",
    )
    yield Slider(
        "min-p      ",
        [f"{min_p:.2f}" if min_p else f" {OFF}" for min_p in MIN_PS],
        0,
        help_line="Minimum fraction of the likeliest word's probability; ← → change it",
        id="min-p",
    )
