"""The groups of measurements that `lotr-tui bench` runs."""

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from engine.errors import InvalidInputError, suggest_nearest
from engine.runtime.packages import install_command
from lotr_tui.bench.interface import (
    attach,
    completion,
    keys,
    learn,
    pretrained_session,
    serve,
    slider,
    start_up,
    stream,
    transcript,
    usage,
)
from lotr_tui.bench.measurement import Measurement, SkippedMeasurement
from lotr_tui.bench.playing import branch, generation, memorization, pretrained, transformer_speed
from lotr_tui.bench.training import (
    byte_pairs,
    dashboard,
    distributed,
    gpu,
    growth,
    quality,
    speed,
    trackers,
    transformer_training,
)

BenchmarkGroup = Callable[[int], Iterator[Measurement | SkippedMeasurement]]
"""Function from a number of repetitions to the measurements of a group."""

TORCH_GROUPS = frozenset(
    {
        *("train", "quality", "start", "memory", "generate", "dashboard", "scale-out", "gpu"),
        *("transformer-train", "transformer-start", "transformer-generate"),
    }
)
"""Groups that train, or compare with PyTorch."""


def benchmark_groups(ptb: Path | None = None, csv: Path | None = None) -> Mapping[str, BenchmarkGroup]:
    """Return all groups by name, in the order in which they run; see `run_groups` for the arguments."""
    return {
        "train": partial(speed.measure_training, csv=csv),
        "quality": partial(quality.measure_time_to_quality, csv=csv),
        "start": start_up.measure_startup,
        "memory": usage.measure_memory,
        "generate": generation.measure_generation,
        "stream": stream.measure_stream,
        "bytes": stream.measure_bytes_per_word,
        "keys": keys.measure_key_latency,
        "slider": slider.measure_slider,
        "idle": usage.measure_idle,
        "transcript": transcript.measure_transcript,
        "branch": branch.measure_branch,
        "dashboard": dashboard.measure_dashboard,
        "trackers": trackers.measure_trackers,
        "attach": attach.measure_attach,
        "scale-out": distributed.measure_scale_out,
        "memorization": partial(memorization.measure_memorization, ptb=ptb),
        "growth": growth.measure_growth,
        "byte-pairs": byte_pairs.measure_byte_pairs,
        "transformer-train": partial(transformer_training.measure_transformer_training, csv=csv),
        "transformer-start": start_up.measure_transformer_startup,
        "transformer-generate": transformer_speed.measure_transformer_generation,
        "pretrained": pretrained.measure_pretrained,
        "pretrained-session": pretrained_session.measure_pretrained_session,
        "class": learn.measure_class,
        "completion": completion.measure_completion,
        "serve": serve.measure_serve,
        "gpu": gpu.measure_gpu,
    }


def run_groups(
    repeat: int, only: Sequence[str] = (), ptb: Path | None = None, csv: Path | None = None
) -> Iterator[Measurement | SkippedMeasurement]:
    """Run groups of measurements one after the other, and yield each measurement when it is done.

    Args:
        repeat: Runs of each measurement.
        only: Names of the groups to run; empty for all.
        ptb: Training text of the Penn Treebank; None for the file in the directory that `LOTR_TUI_SHARED` names.
        csv: Dialogues to train on; None for the bundled ones.

    Raises:
        InvalidInputError: If a group or file does not exist, or pyte, which interprets the screen, is not installed.
        BenchError: If a measured program does not reach the expected state.
    """
    groups = benchmark_groups(ptb, csv)
    for name in only:
        if name not in groups:
            hint = suggest_nearest(name, groups)
            raise InvalidInputError(f"no benchmark group is named {name!r}{hint} Groups: {', '.join(groups)}")
    if importlib.util.find_spec("pyte") is None:
        raise InvalidInputError("bench needs pyte to read the screen; pip install 'lotr-tui[dev]'")
    has_torch = importlib.util.find_spec("torch") is not None
    for name, group in groups.items():
        if only and name not in only:
            continue
        if name in TORCH_GROUPS and not has_torch:
            yield SkippedMeasurement(name, f"needs PyTorch; {install_command('torch')}")
        else:
            yield from group(repeat)
