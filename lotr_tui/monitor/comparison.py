"""Comparison of runs: the settings that differ, the figures, their differences to a baseline, and the best ones."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Literal

from engine.config import Config
from engine.data.speakers import CAST_FILE
from engine.data.tokenizers import OPEN_VOCABULARIES, TOKENIZER_FILES
from engine.errors import InvalidInputError
from engine.events import Evaluated, Finished, Started, Step
from engine.runs.directory import (
    MAX_FILE_BYTES,
    METRICS_FILE,
    RunState,
    directory_size,
    drop_superseded,
    read_config,
    read_events,
    run_state,
    saved_perplexity,
)
from engine.storage.files import read_limited
from lotr_tui.formatting import PRETRAINED_NOTE, format_bytes, format_count, format_duration, format_perplexity

PERPLEXITY_PARTS = ("corpus", "split", "mode", "vocabulary")
"""Parts of `ScoredText` that have to be equal for a comparison of perplexities."""
BITS_PARTS = ("corpus", "split", "form")
"""Parts of `ScoredText` that have to be equal for a comparison of bits per character."""


@dataclass(frozen=True)
class ScoredText:
    """Identity of the text that the figures of a run are measured on. A part that is None is unknown, equal to none."""

    corpus: str | None = None
    split: str | None = None
    mode: str | None = None
    vocabulary: str | None = None
    form: str | None = None  # in which characters are counted: lower-case words, or as written; a script has speakers


@dataclass(frozen=True)
class ComparedRun:
    """Settings and figures of a run. A run may lack a configuration, a model, or both."""

    name: str
    path: Path
    state: RunState
    device: str  # of the training; "" if unknown
    settings: Mapping[str, object] | None  # None if the configuration is missing or damaged
    text: ScoredText
    figures: Mapping[str, float]  # by the name of their metric; unknown ones are absent


@dataclass(frozen=True)
class Metric:
    """Figure of a run, and how it is compared."""

    name: str  # in `ComparedRun.figures` and in JSON
    label: str
    better: Literal["lower", "higher", ""]
    format: Callable[[float], str]
    parts: tuple[str, ...] = ()  # of `ScoredText` that have to be equal
    is_of_finished: bool = False  # the figure of another run is of a part of its training, which cannot be the best


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
    """Difference of a figure to the same figure of the baseline; the percentage is NaN if that is 0."""

    absolute: float
    percent: float


@dataclass(frozen=True)
class MetricRow:
    """Figures of all runs for one metric, in the order of the runs."""

    metric: Metric
    values: tuple[float | None, ...]
    differences: tuple[Difference | None, ...]  # None if a figure is unknown, or of another text
    best: frozenset[int]  # empty if the figures are equal, or not comparable
    is_comparable: bool  # all known figures are of the same text, or do not depend on a text


@dataclass(frozen=True)
class RunComparison:
    """Comparison of two or more runs with one of them, the baseline, given by its index."""

    runs: tuple[ComparedRun, ...]
    baseline: int
    settings: Mapping[str, tuple[object, ...]]  # values by the name of a setting that differs; None is unknown
    metrics: tuple[MetricRow, ...]
    notes: tuple[str, ...]  # what cannot be compared, and which figures will change


def read_compared_run(path: Path, name: str = "") -> ComparedRun:
    """Read a run directory, from which any file may be missing; `name` replaces the name of the folder.

    The validation perplexity is the one of the saved model; without a saved model, it is the lowest one.
    """
    config = None
    with suppress(InvalidInputError):
        config = read_config(path)
    all_events = list(read_events(path / METRICS_FILE, subsample=True))
    events = drop_superseded(all_events)
    started = next((event for event in reversed(events) if isinstance(event, Started)), None)
    steps = [event for event in events if isinstance(event, Step)]
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    finished = next((event for event in reversed(events) if isinstance(event, Finished)), None)
    perplexities = (event.valid_perplexity for event in evaluations if event.valid_perplexity > 0)
    valid_perplexity = saved_perplexity(all_events) or min(perplexities, default=None)
    progress: list[Step | Evaluated] = [*steps[-1:], *evaluations[-1:]]
    speeds = [event.tokens_per_second for event in steps if math.isfinite(event.tokens_per_second)]
    figures: dict[str, float | None] = {
        "valid_perplexity": valid_perplexity,
        "test_perplexity": finished.test_perplexity if finished else None,
        "valid_bits_per_character": started.bits_per_character(valid_perplexity)
        if started and valid_perplexity
        else None,
        "epochs": finished.epochs if finished else max((event.epoch for event in progress), default=None),
        "seconds": finished.seconds if finished else max((event.seconds for event in progress), default=None),
        "tokens_per_second": median(speeds) if speeds else None,  # a pause or a busy minute hardly changes it
        "parameters": started.parameters if started else None,
        "size_bytes": directory_size(path),
    }
    return ComparedRun(
        name=name or path.name,
        path=path,
        state=run_state(path, events),
        device=started.device if started else "",
        settings=None if config is None else config.settings(),
        text=ScoredText() if config is None else _scored_text(path, config, started),
        figures={key: value for key, value in figures.items() if value is not None and math.isfinite(value)},
    )


def _scored_text(path: Path, config: Config, started: Started | None) -> ScoredText:
    def join(parts: Sequence[object]) -> str:
        return "\n".join(map(str, parts))

    data = config.data
    columns = [data.corpus_format, *([data.text_column] if data.corpus_format == "csv" else [])]
    held_out = (
        [data.valid_corpus, data.test_corpus] if data.valid_corpus else [data.split, data.split_seed, data.held_out]
    )
    scenes: list[object] = []
    files = [TOKENIZER_FILES[data.tokenizer]]
    if data.mode == "dialogue":
        scenes = [data.speaker_column, data.scene_column, data.scene_lines, data.min_speaker_lines]
        files.append(CAST_FILE)
    vocabulary = hashlib.sha256(data.tokenizer.encode())
    has_files = True
    for name in files:
        try:
            vocabulary.update(read_limited(path / name, MAX_FILE_BYTES))
        except OSError:
            has_files = False
    form = "original" if data.tokenizer in OPEN_VOCABULARIES else data.tokenizer
    return ScoredText(
        corpus=join([(started.corpus_sha256 if started else "") or data.corpus, *columns]),
        split=join([*held_out, data.min_characters, config.training.max_eval_tokens]),
        mode=join([data.mode, *scenes]),
        vocabulary=vocabulary.hexdigest() if has_files else None,
        form=join([form, *scenes, started.valid_characters]) if started else None,
    )


def compare_runs(runs: Sequence[ComparedRun], baseline: int = 0) -> RunComparison:
    """Compare runs with the one of the index `baseline`.

    A run without known settings does not count for the settings that differ; one that lacks a setting differs.
    """
    known = [run.settings for run in runs if run.settings is not None]
    settings = {
        name: tuple((run.settings or {}).get(name) for run in runs)
        for name in dict.fromkeys(chain.from_iterable(known))
        if len({str(each[name]) if name in each else None for each in known}) > 1
    }
    metrics = tuple(_compare_metric(metric, runs, baseline) for metric in METRICS)
    return RunComparison(tuple(runs), baseline, settings, metrics, tuple(_notes(runs, baseline, metrics)))


def _unequal_parts(run: ComparedRun, other: ComparedRun, parts: Sequence[str]) -> list[str]:
    pairs = [(part, getattr(run.text, part), getattr(other.text, part)) for part in parts]
    return [part for part, value, other_value in pairs if value is None or value != other_value]


def _compare_metric(metric: Metric, runs: Sequence[ComparedRun], baseline: int) -> MetricRow:
    values = tuple(run.figures.get(metric.name) for run in runs)
    reference = values[baseline]
    differences: list[Difference | None] = []
    for run, value in zip(runs, values, strict=True):
        is_same_text = run is runs[baseline] or not _unequal_parts(run, runs[baseline], metric.parts)
        if value is None or reference is None or not is_same_text:
            differences.append(None)
        else:
            percent = 100 * (value - reference) / abs(reference) if reference else math.nan
            differences.append(Difference(value - reference, percent))
    known = {index: value for index, value in enumerate(values) if value is not None}
    first = runs[next(iter(known), 0)]
    is_comparable = not any(_unequal_parts(runs[index], first, metric.parts) for index in list(known)[1:])
    candidates = {
        index: value for index, value in known.items() if runs[index].state == "finished" or not metric.is_of_finished
    }
    best: frozenset[int] = frozenset()
    if metric.better and is_comparable and len(set(candidates.values())) > 1:
        target = min(candidates.values()) if metric.better == "lower" else max(candidates.values())
        best = frozenset(index for index, value in candidates.items() if value == target)
    return MetricRow(metric, values, tuple(differences), best, is_comparable)


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
    names_by_reason: dict[str, list[str]] = {}
    for index, run in enumerate(runs):
        unequal = [] if index == baseline else _unequal_parts(run, runs[baseline], PERPLEXITY_PARTS)
        if unequal and (run.figures.get("valid_perplexity") or run.figures.get("test_perplexity")):
            names_by_reason.setdefault(_describe_parts(run, runs[baseline], unequal), []).append(run.name)
    notes += [
        f"Perplexities of {', '.join(names)} are not comparable with {runs[baseline].name}: {reason}."
        for reason, names in names_by_reason.items()
    ]
    if names_by_reason:
        bits = next(row for row in metrics if row.metric.parts == BITS_PARTS)
        if sum(value is not None for value in bits.values) > 1 and bits.is_comparable:
            notes.append("Bits per character are comparable.")
        else:
            notes.append("`lotr-tui eval A B` compares any models by bits per character of the same text.")
    devices: dict[str, list[str]] = {}
    for run in sorted(runs, key=lambda run: run.device):
        if run.device:
            devices.setdefault(run.device, []).append(run.name)
    if len(devices) > 1:
        places = "; ".join(f"{device}: {', '.join(names)}" for device, names in devices.items())
        notes.append(f"Time and tokens/s are of different devices ({places}).")
    if any(row.best for row in metrics if row.metric.name == "test_perplexity"):
        notes.append("Choose a run by its validation figures; the test split is for the run that is chosen.")
    return notes


def _describe_parts(run: ComparedRun, baseline: ComparedRun, parts: Sequence[str]) -> str:
    """Return why figures are not comparable, such as "other split and vocabulary"."""
    unknown = [part for part in parts if getattr(run.text, part) is None or getattr(baseline.text, part) is None]
    different = [part for part in parts if part not in unknown]
    reasons = []
    for adjective, names in (("other", different), ("unknown", unknown)):
        if names:
            words = " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
            reasons.append(f"{adjective} {words}")
    return ", ".join(reasons)
