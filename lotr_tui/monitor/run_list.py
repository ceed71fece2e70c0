"""List of runs with its columns, and comparisons of runs with one of them, the baseline."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.cells import cell_len, chop_cells
from rich.console import RenderableType
from rich.style import Style
from rich.table import Column, Table
from rich.text import Text

from engine import events
from engine.config import Config
from engine.data.arrays import Float64Array
from engine.data.speakers import CAST_FILE
from engine.data.tokenizers import OPEN_VOCABULARIES, TOKENIZER_FILES
from engine.errors import InvalidInputError, printable
from engine.models.adapters import Adapter
from engine.runs import directory, loading
from engine.storage.files import read_limited
from lotr_tui import formatting
from lotr_tui.monitor.training_view import PERPLEXITY, LossUnit

PERPLEXITY_PARTS = ("corpus", "split", "mode", "vocabulary")  # of the scored text, equal if perplexities compare
BITS_PARTS = ("corpus", "split", "form")  # of the scored text, equal if bits per character compare
Role = Literal["heading", "best", "better", "worse", "muted"]
"""Role of a piece of text in a table, from which terminal and screen choose its style."""
DIRECTION_MARKS = {"lower": " ↓", "higher": " ↑", "": ""}
MIN_RUN_WIDTH, MAX_VALUE_WIDTH, GAP = 12, 20, 2
UNLIMITED_WIDTH = 1000  # from which names and values are not shortened


class ListColumn(NamedTuple):
    """Column of a list of runs or of sessions; a width of 0 cells fills the remaining width."""

    name: str
    width: int
    format: Callable[[Any], str]
    sort_key: Callable[[Any], float | str]
    is_text: bool = False  # at the left of the column


def format_run_loss(perplexity: float | None, run: directory.RunSummary) -> str:
    """Return a perplexity of a run in its unit, with a mark that `PRETRAINED_MARK_NOTE` explains if it is due."""
    text = LossUnit.of(run).format(perplexity)
    return f"{text}*" if run.pretrained_on_other_text and text != formatting.MISSING else text


def _loss_column(name: str, perplexity: Callable[[directory.RunSummary], float | None]) -> ListColumn:
    def sort_key(run: directory.RunSummary) -> float:
        value = perplexity(run)
        return LossUnit.of(run).value(value) if value else math.inf

    return ListColumn(name, 7, lambda run: format_run_loss(perplexity(run), run), sort_key)


# All columns fit into 80 cells; narrower terminals drop columns from the right, except the one that sorts the list.
RUN_COLUMNS = (
    ListColumn("run", 0, lambda run: run.name, lambda run: run.name.lower()),
    ListColumn("state", 8, lambda run: run.state, lambda run: run.state),
    _loss_column("valid", lambda run: run.valid_perplexity),
    _loss_column("test", lambda run: run.test_perplexity),
    ListColumn("epochs", 7, lambda run: f"{run.epochs:.1f}", lambda run: -run.epochs),
    ListColumn("preset", 8, lambda run: run.preset, lambda run: run.preset),
    ListColumn("age", 6, lambda run: formatting.format_age(time.time() - run.started_at), lambda run: -run.started_at),
    ListColumn("size", 8, lambda run: formatting.format_bytes(run.size_bytes), lambda run: -run.size_bytes),
)


def list_selectable_runs(runs_dir: Path | None) -> list[directory.RunSummary]:
    """Return the runs of a folder, latest first, followed by the bundled models."""
    runs = directory.list_runs(runs_dir)
    for name in directory.bundled_runs().values():
        with suppress(InvalidInputError, OSError):
            runs.append(replace(directory.summarize_run(directory.resolve_run(name)), name=name))
    return runs


# Comparison


@dataclass(frozen=True)
class ComparedRun:
    """Settings and figures of a run. A run may lack a configuration, a model, or both."""

    name: str
    path: Path
    state: directory.RunState
    device: str  # of the training; "" if unknown
    settings: Mapping[str, object] | None  # None if the configuration is missing or damaged
    text: Mapping[str, str | None]  # parts that identify the text of the figures; an unknown one is equal to none
    figures: Mapping[str, float]  # by the name of their metric; unknown ones are absent
    curve: tuple[Float64Array, Float64Array]  # epochs and known validation perplexities [evaluation]
    # Size of what the adapter adds to each layer, by matrix; empty without one.
    adapter_norms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    unit: LossUnit = PERPLEXITY  # in which the losses of the run are shown


@dataclass(frozen=True)
class Metric:
    """Figure of a run, and how it is compared."""

    name: str  # in `ComparedRun.figures` and in JSON
    label: str
    better: Literal["lower", "higher", ""]
    format: Callable[[float], str]
    parts: tuple[str, ...] = ()  # of the scored text that have to be equal
    is_of_finished: bool = False  # the figure of another run is of a part of its training, which cannot be the best


METRICS = (
    Metric("valid_perplexity", "valid perplexity", "lower", formatting.format_perplexity, PERPLEXITY_PARTS),
    Metric("test_perplexity", "test perplexity", "lower", formatting.format_perplexity, PERPLEXITY_PARTS),
    Metric("valid_bits_per_character", "valid bits/char", "lower", lambda bits: f"{bits:.3f}", BITS_PARTS),
    Metric("epochs", "epochs", "", lambda epochs: f"{epochs:.1f}"),
    Metric("seconds", "time", "lower", formatting.format_duration, is_of_finished=True),
    Metric("tokens_per_second", "tokens/s", "higher", formatting.format_count),
    Metric("parameters", "parameters", "lower", formatting.format_count),
    Metric("size_bytes", "size", "lower", formatting.format_bytes),
)


class Difference(NamedTuple):
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
    config, norms = None, dict[str, list[float]]()
    with suppress(InvalidInputError, OSError):
        config = directory.read_config(path)
        if config.model.lora_rank:
            norms = Adapter("", config.model, loading.read_adapter(path, config.model, None)).norms()
    recorded = list(directory.read_events(path / directory.METRICS_FILE, subsample=True))
    current = directory.drop_superseded(recorded)
    started = next((event for event in reversed(current) if isinstance(event, events.Started)), None)
    finished = next((event for event in reversed(current) if isinstance(event, events.Finished)), None)
    steps = [event for event in current if isinstance(event, events.Step)]
    evaluations = [event for event in current if isinstance(event, events.Evaluated)]
    points = [(event.epoch, event.valid_perplexity) for event in evaluations if event.valid_perplexity > 0]
    epochs, perplexities = np.array([point for point in points if all(map(math.isfinite, point))]).reshape(-1, 2).T
    valid = directory.saved_perplexity(recorded) or min((perplexity for _, perplexity in points), default=None)
    progress: list[events.Step | events.Evaluated] = [*steps[-1:], *evaluations[-1:]]
    speeds = [event.tokens_per_second for event in steps if math.isfinite(event.tokens_per_second)]
    figures: dict[str, float | None] = {
        "valid_perplexity": valid,
        "test_perplexity": finished.test_perplexity if finished else None,
        "valid_bits_per_character": started.bits_per_character(valid) if started and valid else None,
        "epochs": finished.epochs if finished else max((event.epoch for event in progress), default=None),
        "seconds": finished.seconds if finished else max((event.seconds for event in progress), default=None),
        "tokens_per_second": median(speeds) if speeds else None,  # a pause or a busy minute hardly changes it
        "parameters": started.parameters if started else None,
        "size_bytes": directory.directory_size(path),
    }
    return ComparedRun(
        name=name or path.name,
        path=path,
        state=directory.run_state(path, current),
        device=started.device if started else "",
        settings=None if config is None else config.settings(),
        text={} if config is None else _scored_text(path, config, started),
        figures={key: value for key, value in figures.items() if value is not None and math.isfinite(value)},
        curve=(epochs, perplexities),
        adapter_norms=norms,
        unit=LossUnit.of(started),
    )


def _scored_text(path: Path, config: Config, started: events.Started | None) -> dict[str, str | None]:
    data = config.data
    columns = [data.corpus_format, *([data.text_column] if data.corpus_format == "csv" else [])]
    split: list[object] = [data.split, data.split_seed, data.held_out]
    if data.valid_corpus:
        split = [data.valid_corpus, data.test_corpus]
    files, scenes = [TOKENIZER_FILES[data.tokenizer]], list[object]()
    if data.mode == "dialogue":
        scenes = [data.speaker_column, data.scene_column, data.scene_lines, data.min_speaker_lines]
        files.append(CAST_FILE)
    vocabulary: str | None = None
    with suppress(OSError):
        contents = [read_limited(path / name, directory.MAX_FILE_BYTES) for name in files]
        vocabulary = hashlib.sha256(b"".join([data.tokenizer.encode(), *contents])).hexdigest()
    # Characters are counted in lower-case words, or as written; a script has speakers.
    form = "original" if data.tokenizer in OPEN_VOCABULARIES else data.tokenizer
    parts: dict[str, list[object]] = {
        "corpus": [(started.corpus_sha256 if started else "") or data.corpus, *columns],
        "split": [*split, data.min_characters, config.training.max_eval_tokens],
        "mode": [data.mode, *scenes],
        "form": [form, *scenes, started.valid_characters] if started else [],
    }
    return {name: "\n".join(map(str, values)) or None for name, values in parts.items()} | {"vocabulary": vocabulary}


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
    rows = tuple(_compare_metric(metric, runs, baseline) for metric in METRICS)
    return RunComparison(tuple(runs), baseline, settings, rows, tuple(_notes(runs, runs[baseline], rows)))


def _unequal_parts(run: ComparedRun, other: ComparedRun, parts: Sequence[str]) -> list[str]:
    pairs = [(part, run.text.get(part), other.text.get(part)) for part in parts]
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
    known = [(run, value) for run, value in zip(runs, values, strict=True) if value is not None]
    is_comparable = not any(_unequal_parts(run, known[0][0], metric.parts) for run, _ in known[1:])
    candidates = {value for run, value in known if run.state == "finished" or not metric.is_of_finished}
    best: frozenset[int] = frozenset()
    if metric.better and is_comparable and len(candidates) > 1:
        target = min(candidates) if metric.better == "lower" else max(candidates)
        best = frozenset(index for index, value in enumerate(values) if value == target)
    return MetricRow(metric, values, tuple(differences), best, is_comparable)


def _notes(runs: Sequence[ComparedRun], baseline: ComparedRun, rows: Sequence[MetricRow]) -> list[str]:
    unknown = "Settings unknown, because config.json is missing or damaged"
    kinds: list[tuple[str, Callable[[ComparedRun], bool]]] = [
        ("Still training, with figures so far", lambda run: run.state == "running"),
        ("Trained by other programs, with unknown settings", lambda run: run.state == "imported"),
        (unknown, lambda run: run.settings is None and run.state != "imported"),
        (formatting.PRETRAINED_NOTE.capitalize(), lambda run: (run.settings or {}).get("tokenizer") == "pretrained"),
    ]
    by_kind = {note: [run.name for run in runs if applies(run)] for note, applies in kinds}
    notes = [f"{note}: {', '.join(names)}." for note, names in by_kind.items() if names]
    names_by_reason: dict[str, list[str]] = {}
    for run in runs:
        parts = [] if run is baseline else _unequal_parts(run, baseline, PERPLEXITY_PARTS)
        if parts and (run.figures.get("valid_perplexity") or run.figures.get("test_perplexity")):
            missing = [part for part in parts if run.text.get(part) is None or baseline.text.get(part) is None]
            by_reason = {"other": [part for part in parts if part not in missing], "unknown": missing}
            reasons = [f"{reason} {' and '.join(parts)}" for reason, parts in by_reason.items() if parts]
            names_by_reason.setdefault(", ".join(reasons), []).append(run.name)
    for reason, names in names_by_reason.items():
        notes.append(f"Perplexities of {', '.join(names)} are not comparable with {baseline.name}: {reason}.")
    if names_by_reason:
        bits = next(row for row in rows if row.metric.parts == BITS_PARTS)
        if sum(value is not None for value in bits.values) > 1 and bits.is_comparable:
            notes.append("Bits per character are comparable.")
        else:
            notes.append("`lotr-tui eval A B` compares any models by bits per character of the same text.")
    devices = {run.device: [each.name for each in runs if each.device == run.device] for run in runs if run.device}
    if len(devices) > 1:
        places = "; ".join(f"{device}: {', '.join(names)}" for device, names in sorted(devices.items()))
        notes.append(f"Time and tokens/s are of different devices ({places}).")
    if any(row.best for row in rows if row.metric.name == "test_perplexity"):
        notes.append("Choose a run by its validation figures; the test split is for the run that is chosen.")
    return notes


# Tables


def comparison_tables(
    comparison: RunComparison, names: Sequence[str], width: int, styles: Mapping[Role, str | Style]
) -> list[RenderableType]:
    """Return tables with one column per run, and the notes.

    Each table has as many runs as fit `width` cells, first the baseline. `names` are the headings of the runs.
    """
    baseline = comparison.baseline
    rows = [row for row in comparison.metrics if any(value is not None for value in row.values)]
    title = "different settings" if comparison.settings else "no setting differs"
    figure_labels = [f"{row.metric.label}{DIRECTION_MARKS[row.metric.better]}" for row in rows]
    labels = [title, *comparison.settings, "", "results", *figure_labels]
    label_width = min(max(map(cell_len, labels)), max(1, width // 2))
    share = (width - label_width) // min(len(names), 6) - GAP
    limit = width if width >= UNLIMITED_WIDTH else max(MIN_RUN_WIDTH, min(MAX_VALUE_WIDTH, share))
    settings = [_setting_texts(values, limit) for values in comparison.settings.values()]
    columns: list[list[Text]] = []
    for run, name in enumerate(map(printable, names)):
        heading = Text(_truncate_middle(name, limit), styles["heading"])
        figures = [_figure_cell(row, run, run == baseline, styles) for row in rows]
        columns.append([heading, *(Text(texts[run]) for texts in settings), Text(""), heading, *figures])
    run_width = max(cell_len(line) for column in columns for cell in column for line in cell.plain.split("\n"))
    others = [run for run in range(len(names)) if run != baseline]
    num_others = max(1, (width - label_width) // (run_width + GAP) - 1)  # in each table
    parts: list[RenderableType] = []
    for start in range(0, len(others), num_others):
        block = [baseline, *others[start : start + num_others]]
        table = Table.grid(padding=(0, 0, 0, GAP))
        table.add_column(width=label_width, no_wrap=True)
        for _ in block:
            table.add_column(justify="right", min_width=min(run_width, MIN_RUN_WIDTH), no_wrap=True)
        for index, label in enumerate(labels):
            style = styles["heading"] if label in (title, "results") else ""
            table.add_row(Text(label, style), *(columns[run][index] for run in block))
        parts += [table, Text("")]
    legend = ["* best"] if any(row.best for row in rows) else []
    legend += ["↓ lower is better", "↑ higher is better", f"baseline {names[baseline]}"]
    parts += _adapter_maps(comparison.runs, names, styles)
    notes = [" · ".join(legend), *comparison.notes]
    return [*parts, Text("\n".join(map(printable, notes)), styles["muted"])]


def _adapter_maps(
    runs: Sequence[ComparedRun], names: Sequence[str], styles: Mapping[Role, str | Style]
) -> list[RenderableType]:
    highest = max(chain.from_iterable(chain.from_iterable(run.adapter_norms.values() for run in runs)), default=0.0)
    parts = list[RenderableType]()
    for run, name in zip(runs, names, strict=True):
        if run.adapter_norms:
            table = Table.grid(Column(no_wrap=True), Column(no_wrap=True), padding=(0, GAP, 0, 0))
            for matrix, norms in run.adapter_norms.items():
                extent = f"{min(norms):.2f} to {max(norms):.2f}"
                table.add_row(matrix, formatting.sparkline(norms, highest), extent)
            heading = f"adapter of {printable(name)}, layers 1 to {len(norms)}"
            parts += [Text(heading, styles["heading"]), table, Text("")]
    if parts:
        legend = f"{formatting.BLOCK_HEIGHTS} from 0 to {highest:.2f}: norm of what the adapter adds to a matrix"
        parts.insert(-1, Text(legend, styles["muted"]))
    return parts


def _figure_cell(row: MetricRow, run: int, is_baseline: bool, styles: Mapping[Role, str | Style]) -> Text:
    """Return a figure, marked if it is the best, and below it the difference to the baseline, as "+3.1 +4.2 %"."""

    def figure(value: float) -> str:
        text = row.metric.format(value)
        return text if len(text) <= 16 else f"{value:.1e}"  # of damaged metrics

    value, difference = row.values[run], row.differences[run]
    if value is None:
        return Text(formatting.MISSING, styles["muted"])
    cell = Text(f"*{figure(value)}", styles["best"]) if run in row.best else Text(figure(value))
    if difference is None or is_baseline:
        return cell
    absolute, percent = difference
    if not absolute:
        return Text("\n").join([cell, Text("=", styles["muted"])])
    text = f"{'+' if absolute > 0 else '-'}{figure(abs(absolute))}"
    if math.isfinite(percent):
        decimals = 1 if abs(percent) < 9.95 else 0
        text += f" {percent:+,.{decimals}f} %" if abs(percent) < 1e5 else f" {percent:+.0e} %"
    is_better = (absolute < 0) == (row.metric.better == "lower")
    role: Role = "muted" if not row.metric.better else "better" if is_better else "worse"
    return Text("\n").join([cell, Text(text, styles[role])])


def _setting_texts(values: Sequence[object], width: int) -> list[str]:
    """Return the values of a setting as `--set` takes them, in `width` cells."""
    texts = [
        "?" if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in values
    ]
    return [_truncate_middle(printable(text) or '""', width) for text in texts]


def _truncate_middle(text: str, width: int) -> str:
    """Return start and end of a text that is too long: names of a series and paths differ at their end."""
    if cell_len(text) <= width:
        return text
    end = chop_cells(text[::-1], width * 2 // 3)[0][::-1]
    return f"{chop_cells(text, width - 1 - cell_len(end))[0]}…{end}"
