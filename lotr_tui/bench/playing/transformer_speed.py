"""Generation speed of the Transformer of the preset `gpt` on one core, compared with a plain decoder in PyTorch."""

from collections.abc import Iterator, Mapping, Sequence

from lotr_tui.bench.measurement import Measurement, median_of_runs
from lotr_tui.bench.playing.generation_speeds import BATCH_SIZE
from lotr_tui.bench.processes import SINGLE_THREAD_ENV, run_module

MODEL_NAME = "Transformer, 6 layers of 320"
PRECISIONS = ("fp32", "int8")
MIN_RATIO = 5.0
"""Lower limit of the speed divided by the baseline's. In fp32, reading the 32 MB of weights alone takes about a quarter
of the baseline's time for a token, which limits the ratio to about 4."""


def measure_transformer_generation(repeat: int) -> Iterator[Measurement]:
    """Measure the baseline and all speeds in turn, each in a new process with one thread."""
    runs = []
    for _ in range(repeat):
        baseline = run_module("lotr_tui.bench.playing.torch_decoder", env=SINGLE_THREAD_ENV)
        speeds = run_module("lotr_tui.bench.playing.transformer_generation", env=SINGLE_THREAD_ENV)
        runs.append({"baseline": baseline, **speeds})
    yield from summarize_transformer_speeds(runs)


def summarize_transformer_speeds(runs: Sequence[Mapping[str, float]]) -> Iterator[Measurement]:
    """Yield median speeds and latencies, and medians of the ratios within each run.

    A run has the keys that `measure_transformer_speeds` returns, and `baseline`.
    """

    def values(key: str) -> list[float]:
        return [run[key] for run in runs]

    def ratios(key: str, reference: str) -> list[float]:
        return [run[key] / run[reference] for run in runs]

    yield median_of_runs(
        f"baseline (PyTorch with a key-value cache, {MODEL_NAME}), one core", "tokens/s", values("baseline")
    )
    for precision in PRECISIONS:
        name = f"{MODEL_NAME}, {precision}"
        yield median_of_runs(f"{name}, one core", "tokens/s", values(precision))
        yield median_of_runs(f"{name}, ratio to the baseline", "", ratios(precision, "baseline"), None, MIN_RATIO)
        batch = f"{name}, batch of {BATCH_SIZE} texts"
        yield median_of_runs(f"{batch}, one core", "tokens/s", values(f"{precision}_batched"))
        batch_ratios = ratios(f"{precision}_batched", f"{precision}_sequential")
        yield median_of_runs(f"{batch}, ratio to one after the other", "", batch_ratios)
        yield median_of_runs(f"{name}, branch 200 tokens back", "ms", values(f"{precision}_branch"), 50)
