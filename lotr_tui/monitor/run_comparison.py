"""Comparison of runs: the settings that differ, the figures, their differences to a baseline, and the best ones."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from lotr_tui.formatting import PRETRAINED_NOTE, format_bytes, format_count, format_duration, format_perplexity
from lotr_tui.monitor.compared_run import ComparedRun

PERPLEXITY_PARTS = ("corpus", "split", "mode", "vocabulary")
"""Parts of `ScoredText` that have to be equal for a comparison of perplexities."""
BITS_PARTS = ("corpus", "split", "form")
"""Parts of `ScoredText` that have to be equal for a comparison of bits per character."""


@dataclass(frozen=True)
class Metric:
    """Figure of a run, and how it is compared."""

    name: str
    """Key in `ComparedRun.figures` and in JSON."""
    label: str
    better: Literal["lower", "higher", ""]
    """Direction of an improvement; "" for a figure that has none."""
    format: Callable[[float], str]
    parts: tuple[str, ...] = ()
    """Parts of `ScoredText` that have to be equal; () for a figure that does not depend on the text."""
    is_of_finished: bool = False
    """True if only finished runs can be the best, since the figure of another one is of a part of its training."""


METRICS = (
    Metric("valid_perplexity", "valid", "lower", format_perplexity, PERPLEXITY_PARTS),
    Metric("test_perplexity", "test", "lower", format_perplexity, PERPLEXITY_PARTS),
    Metric("valid_bits_per_character", "valid bits/char", "lower", lambda bits: f"{bits:.3f}", BITS_PARTS),
    Metric("epochs", "epochs", "", lambda epochs: f"{epochs:.1f}"),
    Metric("seconds", "time", "lower", format_duration, is_of_finished=True),
    Metric("tokens_per_second", "tokens/s", "higher", format_count),
    Metric("parameters", "parameters", "lower", format_count),
    Metric("size_bytes", "size", "lower", format_bytes),
)
"""Figures in the order of a report."""


@dataclass(frozen=True)
class Difference:
    """Difference of a figure to the same figure of the baseline."""

    absolute: float
    percent: float
    """Difference in percent of the baseline; NaN if the baseline is 0."""


@dataclass(frozen=True)
class MetricRow:
    """Figures of all runs for one metric."""

    metric: Metric
    baseline: int
    """Index of the baseline in the values."""
    values: tuple[float | None, ...]
    """Figure of each run; None if it is unknown."""
    differences: tuple[Difference | None, ...]
    """Difference of each run to the baseline; None if a figure is unknown, or of another text."""
    best: frozenset[int]
    """Indices of the runs with the best figure; empty if the figures are equal, or not comparable."""
    is_comparable: bool
    """True if all known figures are of the same text, or do not depend on a text."""

    @property
    def has_differences(self) -> bool:
        """True if a figure differs from the same figure of the baseline."""
        return any(difference is not None and difference.absolute for difference in self.differences)


@dataclass(frozen=True)
class SettingRow:
    """Values of all runs for a setting that differs."""

    name: str
    values: tuple[object, ...]
    """Value of each run; None if it is unknown."""


@dataclass(frozen=True)
class RunComparison:
    """Comparison of two or more runs with one of them, the baseline."""

    runs: tuple[ComparedRun, ...]
    baseline: int
    """Index of the baseline in `runs`."""
    settings: tuple[SettingRow, ...]
    metrics: tuple[MetricRow, ...]
    notes: tuple[str, ...]
    """Sentences about what cannot be compared, and about figures that will change."""


def compare_runs(runs: Sequence[ComparedRun], baseline: int = 0) -> RunComparison:
    """Compare runs with the one of the index `baseline`."""
    metrics = tuple(_compare_metric(metric, runs, baseline) for metric in METRICS)
    return RunComparison(
        tuple(runs), baseline, differing_settings(runs), metrics, tuple(_notes(runs, baseline, metrics))
    )


def differing_settings(runs: Sequence[ComparedRun]) -> tuple[SettingRow, ...]:
    """Return the settings whose values are not the same in all runs.

    A run without known settings does not count. A setting that one run lacks and another has counts as different.
    """
    known = [run.settings for run in runs if run.settings is not None]
    names = dict.fromkeys(chain.from_iterable(known))
    rows = []
    for name in names:
        if len({str(settings[name]) if name in settings else None for settings in known}) > 1:
            rows.append(SettingRow(name, tuple((run.settings or {}).get(name) for run in runs)))
    return tuple(rows)


def unequal_parts(run: ComparedRun, other: ComparedRun, parts: Sequence[str]) -> list[str]:
    """Return the parts of the scored text in which two runs differ, or in which one of them is unknown."""
    pairs = [(part, getattr(run.text, part), getattr(other.text, part)) for part in parts]
    return [part for part, value, other_value in pairs if value is None or value != other_value]


def _compare_metric(metric: Metric, runs: Sequence[ComparedRun], baseline: int) -> MetricRow:
    values = tuple(run.figures.get(metric.name) for run in runs)
    reference = values[baseline]
    differences = tuple(
        _difference(value, reference)
        if index == baseline or not unequal_parts(run, runs[baseline], metric.parts)
        else None
        for index, (run, value) in enumerate(zip(runs, values, strict=True))
    )
    known = [(index, value) for index, value in enumerate(values) if value is not None]
    first = runs[known[0][0]] if known else None
    is_comparable = first is None or not any(unequal_parts(runs[index], first, metric.parts) for index, _ in known[1:])
    candidates = {
        index: value for index, value in known if runs[index].state == "finished" or not metric.is_of_finished
    }
    best: frozenset[int] = frozenset()
    if metric.better and is_comparable and len(set(candidates.values())) > 1:
        target = min(candidates.values()) if metric.better == "lower" else max(candidates.values())
        best = frozenset(index for index, value in candidates.items() if value == target)
    return MetricRow(metric, baseline, values, differences, best, is_comparable)


def _difference(value: float | None, reference: float | None) -> Difference | None:
    if value is None or reference is None:
        return None
    absolute = value - reference
    return Difference(absolute, 100 * absolute / abs(reference) if reference else math.nan)


def _notes(runs: Sequence[ComparedRun], baseline: int, metrics: Sequence[MetricRow]) -> list[str]:
    notes = []
    if running := [run.name for run in runs if run.state == "running"]:
        notes.append(f"Still training, with figures so far: {', '.join(running)}.")
    if imported := [run.name for run in runs if run.state == "imported"]:
        notes.append(f"Trained by other programs, with unknown settings: {', '.join(imported)}.")
    if unknown := [run.name for run in runs if run.settings is None and run.name not in imported]:
        notes.append(f"Settings unknown, because config.json is missing or damaged: {', '.join(unknown)}.")
    if pretrained := [run.name for run in runs if (run.settings or {}).get("tokenizer") == "pretrained"]:
        notes.append(f"{PRETRAINED_NOTE.capitalize()}: {', '.join(pretrained)}.")
    notes += _comparability_notes(runs, baseline, metrics)
    devices = {
        device: [run.name for run in runs if run.device == device]
        for device in sorted({run.device for run in runs} - {""})
    }
    if len(devices) > 1:
        places = "; ".join(f"{device}: {', '.join(names)}" for device, names in devices.items())
        notes.append(f"Time and tokens/s are of different devices ({places}).")
    if any(row.best for row in metrics if row.metric.name == "test_perplexity"):
        notes.append("Choose a run by its validation figures; the test split is for the run that is chosen.")
    return notes


def _comparability_notes(runs: Sequence[ComparedRun], baseline: int, metrics: Sequence[MetricRow]) -> list[str]:
    """Return which perplexities cannot be compared with the baseline, and why."""
    names_by_reason: dict[str, list[str]] = {}
    for index, run in enumerate(runs):
        unequal = [] if index == baseline else unequal_parts(run, runs[baseline], PERPLEXITY_PARTS)
        has_figure = any(run.figures.get(row.metric.name) for row in metrics if row.metric.parts == PERPLEXITY_PARTS)
        if unequal and has_figure:
            names_by_reason.setdefault(_describe_parts(run, runs[baseline], unequal), []).append(run.name)
    notes = [
        f"Perplexities of {', '.join(names)} are not comparable with {runs[baseline].name}: {reason}."
        for reason, names in names_by_reason.items()
    ]
    bits = next(row for row in metrics if row.metric.parts == BITS_PARTS)
    if notes and sum(value is not None for value in bits.values) > 1 and bits.is_comparable:
        notes.append("Bits per character are comparable.")
    elif notes:
        notes.append("`lotr-tui eval A B` compares any models by bits per character of the same text.")
    return notes


def _describe_parts(run: ComparedRun, baseline: ComparedRun, parts: Sequence[str]) -> str:
    """Return why figures are not comparable, such as "other split and vocabulary"."""
    unknown = [part for part in parts if getattr(run.text, part) is None or getattr(baseline.text, part) is None]
    different = [part for part in parts if part not in unknown]
    return ", ".join(
        f"{adjective} {_enumerate(names)}" for adjective, names in (("other", different), ("unknown", unknown)) if names
    )


def _enumerate(words: Sequence[str]) -> str:
    """Return words as "a, b and c"."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
