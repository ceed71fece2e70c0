"""Growth of time and memory with the size of the text and of the vocabulary.

Each size is measured in a new process with one thread. Times are CPU times, which other processes disturb less.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lotr_tui.bench.measurement import Measurement, median_of_runs
from lotr_tui.bench.processes import module_command, run_with_usage
from lotr_tui.bench.programs import SESSION_COMMAND, set_options

TEXT_MEGABYTES = (1.1, 11.0, 110.0)
"""Sizes of the texts: tinyshakespeare has 1.1 MB; 10 and 100 times as much."""
VOCABULARY_SIZES = (1_000, 10_000, 50_000)
VOCABULARY_TEXT_BYTES = 2_000_000
"""Size of the text for each vocabulary size."""
SOFTMAX_SAMPLES = 2_000
"""Classes of the sampled softmax."""


def measure_growth(
    repeat: int,
    text_megabytes: Sequence[float] = TEXT_MEGABYTES,
    vocabulary_sizes: Sequence[int] = VOCABULARY_SIZES,
    softmax_samples: int = SOFTMAX_SAMPLES,
) -> Iterator[Measurement]:
    """Measure generated texts of several sizes, then training steps for several sizes of the vocabulary."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = folder / "text.txt"
        seconds_per_megabyte = []
        for megabytes in text_megabytes:
            write_text(text, int(megabytes * 1e6))
            measurements = list(_measure_preparation(text, megabytes, repeat, megabytes == text_megabytes[-1]))
            yield from measurements
            seconds_per_megabyte.append(measurements[0].value / megabytes)
        ratio = seconds_per_megabyte[-1] / seconds_per_megabyte[-2]
        sizes = f"{text_megabytes[-1]:g} MB to {text_megabytes[-2]:g} MB"
        yield Measurement(f"data info, time per MB, ratio of {sizes}", "", ratio, (ratio,), 1.2)
        yield from _measure_first_step(text, text_megabytes[-1], softmax_samples, repeat)
        for vocabulary_size in vocabulary_sizes:
            text = folder / f"{vocabulary_size}.txt"
            write_text(text, VOCABULARY_TEXT_BYTES, vocabulary_size)
            yield from _measure_steps(text, vocabulary_size, 0, repeat)
            if softmax_samples < vocabulary_size:
                yield from _measure_steps(text, vocabulary_size, softmax_samples, repeat)


def _measure_preparation(path: Path, megabytes: float, repeat: int, is_largest: bool) -> Iterator[Measurement]:
    """Measure `data info` without and with its cache, and the tokenizer beside the notebook's."""
    data_info = [*SESSION_COMMAND, "data", "info", str(path), "--json"]
    tokenizer_speed = module_command("lotr_tui.bench.training.tokenizer_speed", path)
    first_runs, cached_runs, tokenizers = [], [], []
    for _ in range(repeat):
        shutil.rmtree(path.parent / "cache", ignore_errors=True)
        first_runs.append(run_with_usage(data_info, path.parent))
        cached_runs.append(run_with_usage(data_info, path.parent))
        tokenizers.append(json.loads(run_with_usage(tokenizer_speed, path.parent).output))
    summary = json.loads(first_runs[0].output)
    counts = f"{summary['num_tokens']:,} words, {summary['num_distinct_tokens']:,} distinct"
    size = f"{megabytes:g} MB"
    yield median_of_runs(f"data info, {size}, {counts}", "s", [run.cpu_seconds for run in first_runs])
    yield median_of_runs(f"data info, {size}, peak memory", "MB", [run.peak_megabytes for run in first_runs], 1000)
    yield median_of_runs(f"data info, {size}, second time", "s", [run.cpu_seconds for run in cached_runs])
    yield median_of_runs(f"tokenizing and indexing, {size}", "s", [run["token_indexer"] for run in tokenizers])
    for key, notebook_task in (("notebook_split", "splitting"), ("notebook_total", "splitting, counting and indexing")):
        ratios = [run[key] / run["token_indexer"] for run in tokenizers]
        lower_limit = 3 if is_largest and key == "notebook_total" else None
        name = f"the notebook's {notebook_task}, {size}, ratio to lotr-tui"
        yield median_of_runs(name, "", ratios, lower_limit=lower_limit)


def _measure_first_step(path: Path, megabytes: float, softmax_samples: int, repeat: int) -> Iterator[Measurement]:
    """Measure the start of a training on a text that is already prepared, up to the first step."""
    settings = {"min_count": 100, "softmax_samples": softmax_samples, "label_smoothing": 0, "max_eval_tokens": 2000}
    command = [*SESSION_COMMAND, "train", "--no-tui", "--json", "--preset", "tiny", "--text", str(path)]
    command += set_options(settings | {"threads": 1})
    runs = [run_with_usage(command, path.parent, stop_at='"step"') for _ in range(repeat)]
    name = f"train on {megabytes:g} MB, to the first step"
    yield median_of_runs(name, "s", [run.cpu_seconds for run in runs])
    yield median_of_runs(f"{name}, peak memory", "MB", [run.peak_megabytes for run in runs], 1000)


def _measure_steps(path: Path, vocabulary_size: int, softmax_samples: int, repeat: int) -> Iterator[Measurement]:
    """Measure training steps, and without a sampled softmax also exact scoring."""
    command = module_command("lotr_tui.bench.training.step_speed", path, softmax_samples)
    runs = [run_with_usage(command, path.parent) for _ in range(repeat)]
    speeds = [json.loads(run.output) for run in runs]
    softmax = f"softmax over {softmax_samples:,} samples" if softmax_samples else "full softmax"
    name = f"training step, {vocabulary_size:,} words, {softmax}"
    yield median_of_runs(name, "ms", [1000 * speed["step_seconds"] for speed in speeds])
    yield median_of_runs(f"{name}, peak memory", "MB", [run.peak_megabytes for run in runs])
    if not softmax_samples:
        rates = [speed["scored_tokens_per_second"] for speed in speeds]
        yield median_of_runs(f"exact scoring, {vocabulary_size:,} words", "words/s", rates)


def write_text(path: Path, num_bytes: int, num_distinct_words: int = 0) -> None:
    """Write a generated text in a new process, because this process must stay small (see `run_with_usage`)."""
    command = module_command("lotr_tui.bench.training.synthetic_text", path, num_bytes, num_distinct_words)
    run_with_usage(command, path.parent)
