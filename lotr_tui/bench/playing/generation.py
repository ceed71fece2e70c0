"""Generation speed on one core: bundled and large model, int8 and batches, compared with the notebook's way."""

import statistics
from collections.abc import Iterator, Mapping, Sequence

from lotr_tui.bench.measurement import Measurement, median_of_runs
from lotr_tui.bench.playing.generation_speeds import BATCH_SIZE, weight_bytes_per_token
from lotr_tui.bench.processes import SINGLE_THREAD_ENV, run_module

BUNDLED_NAME, LARGE_NAME = "bundled model", "2 layers of 512"
REPLYING_MODELS = {
    "words": "model of words, one layer of 300",
    "default": "model of words, preset default",
    "bundled": BUNDLED_NAME,
}
"""Names of the models whose first replies are measured, by their key in `reply_speed`."""
MODELS_WITH_LIMITS = ("words", "bundled")


def measure_generation(repeat: int) -> Iterator[Measurement]:
    """Measure the baseline and all speeds in turn, each in a new process with one thread."""
    runs = []
    for _ in range(repeat):
        baseline = run_module("lotr_tui.bench.playing.notebook_generation", env=SINGLE_THREAD_ENV)
        speeds = run_module("lotr_tui.bench.playing.generation_speeds", env=SINGLE_THREAD_ENV)
        for model in REPLYING_MODELS:
            replies = run_module("lotr_tui.bench.playing.reply_speed", model, env=SINGLE_THREAD_ENV)
            speeds |= {f"{model}_{key}": value for key, value in replies.items()}
        runs.append({"baseline": baseline, **speeds})
    yield from summarize_speeds(runs)


def summarize_speeds(runs: Sequence[Mapping[str, float]]) -> Iterator[Measurement]:
    """Yield median speeds, and medians of the ratios within each run; see `measure_speeds` for the keys of a run."""

    def speed(name: str, key: str) -> Measurement:
        return median_of_runs(f"{name}, one core", "words/s", [run[key] for run in runs])

    def ratio(name: str, key: str, reference: str, lower_limit: float | None) -> Measurement:
        return median_of_runs(name, "", [run[key] / run[reference] for run in runs], lower_limit=lower_limit)

    yield speed(f"baseline (nn.LSTM, {LARGE_NAME})", "baseline")
    yield speed(BUNDLED_NAME, "bundled")
    yield ratio(f"{BUNDLED_NAME}, ratio to the baseline", "bundled", "baseline", 15)
    for key, model_name in REPLYING_MODELS.items():
        for runs_key, name, lower_limit in (
            ("all", "40 replies in one process", 60),
            ("first", "first reply of a process", 40),
        ):
            limit = lower_limit if key in MODELS_WITH_LIMITS else None
            yield speed(f"{model_name}, {name}", f"{key}_{runs_key}")
            yield ratio(f"{model_name}, {name}, ratio to the baseline", f"{key}_{runs_key}", "baseline", limit)
    yield speed(LARGE_NAME, "large")
    yield ratio(f"{LARGE_NAME}, ratio to the baseline", "large", "baseline", 18)
    bandwidth = statistics.median(run["memory_bound"] for run in runs) * weight_bytes_per_token() / 1e9
    yield speed(f"{LARGE_NAME}, bound by reading weights at {bandwidth:.0f} GB/s", "memory_bound")
    yield ratio(f"{LARGE_NAME}, fraction of that bound", "large", "memory_bound", 0.8)
    yield speed(f"{LARGE_NAME}, int8", "int8")
    yield ratio(f"{LARGE_NAME}, int8, ratio to the baseline", "int8", "baseline", 25)
    for model_name, key in ((LARGE_NAME, "large"), (BUNDLED_NAME, "bundled")):
        name = f"{model_name}, batch of {BATCH_SIZE} texts"
        yield speed(name, f"{key}_batched")
        yield ratio(f"{name}, ratio to one after the other", f"{key}_batched", f"{key}_sequential", 4)
