"""The events of a run directory as metric points and text samples, in the order of their steps."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.config import Config
from engine.errors import printable
from engine.events import (
    Evaluated,
    Failed,
    Finished,
    RecordedEvent,
    Resume,
    Sampled,
    Started,
    Step,
    event_from_dict,
    event_name,
)
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, SAMPLES_FILE
from engine.runs.metrics import RecordFollower
from lotr_tui.trackers.tracker import MetricPoint, Setting, TextSample, Tracker

STEP_METRICS = ("train_perplexity", "lr", "gradient_norm", "tokens_per_second", "epoch", "seconds")
"""Fields of a `Step` that become metrics."""
EVALUATION_METRICS = ("valid_perplexity", "notebook_perplexity", "epoch", "seconds")
"""Fields of an `Evaluated` that become metrics."""
READ_BUDGET = 0.0
"""Seconds of reading per batch: one chunk of the file, a few hundred rows, so that a kill repeats no more than that."""
MAX_POINTS = 500
"""Number of points that a tracker receives at once."""


@dataclass(frozen=True)
class RunBatch:
    """New content of a run directory."""

    items: tuple[MetricPoint | TextSample, ...]
    last_steps: Mapping[str, int]
    """Step of the last item of each kind of event, including the items of earlier batches."""
    at_end: bool
    """True if the files were read to their ends."""


class RunStream:
    """Incremental reader of a run directory, for a tracker.

    A resumed training repeats the steps after its checkpoint, with the same results. These repetitions are left out.
    """

    def __init__(self, run_dir: Path, last_steps: Mapping[str, int]) -> None:
        """Prepare to read a run, without the events up to `last_steps`, by the name of the event."""
        self.started: Started | None = None
        """Description of the training, once its row was read."""
        self.end: Finished | Failed | None = None
        """Latest end of the training; None while it is running."""
        self._started_at = (run_dir / CONFIG_FILE).stat().st_mtime
        self._last_steps = dict(last_steps)
        self._metrics = RecordFollower(run_dir / METRICS_FILE)
        self._samples = RecordFollower(run_dir / SAMPLES_FILE)
        self._waiting_samples: list[Sampled] = []
        """Samples of steps whose metrics have not been read yet."""
        self._max_step = -1
        self._last_seconds = 0.0

    def read(self) -> RunBatch:
        """Read the next batch."""
        # Metrics first: all samples before the last of these rows are then in the file of the samples.
        metric_rows = self._metrics.read_batch(READ_BUDGET).rows
        sample_rows = self._samples.read_batch(READ_BUDGET).rows
        at_end = self._metrics.at_end and self._samples.at_end
        self._waiting_samples += _decode(sample_rows, Sampled)
        points: list[MetricPoint] = []
        for row in metric_rows:
            if (event := event_from_dict(row)) is not None:
                points += self._convert(event)
        if at_end or self.end is not None:
            ready, self._waiting_samples = self._waiting_samples, []
        else:
            ready = [sample for sample in self._waiting_samples if sample.step < self._max_step]
            self._waiting_samples = [sample for sample in self._waiting_samples if sample.step >= self._max_step]
        texts = [self._convert_sample(sample) for sample in ready if self._is_new(sample)]
        items: list[MetricPoint | TextSample]
        # At the same step, a sample follows the metrics.
        items = sorted([*points, *texts], key=lambda item: (item.step, isinstance(item, TextSample)))
        return RunBatch(tuple(items), dict(self._last_steps), at_end)

    def settings(self, config: Config) -> dict[str, Setting]:
        """Return the configuration and the description of the training, by name."""
        settings: dict[str, Setting] = config.settings()
        if self.started is not None:
            described = {name: value for name, value in asdict(self.started).items() if name not in settings}
            settings |= {name: value for name, value in described.items() if _is_setting(value)}
        return {name: printable(value) if isinstance(value, str) else value for name, value in settings.items()}

    def _convert(self, event: RecordedEvent) -> list[MetricPoint]:
        match event:
            case Started():
                self.started = event
            case Resume():
                self.end = None
            case Finished() | Failed():
                self.end = event
            case Step() | Evaluated():
                self._max_step = max(self._max_step, event.step)
                if math.isfinite(event.seconds):
                    self._last_seconds = event.seconds
                if self._is_new(event):
                    names = STEP_METRICS if isinstance(event, Step) else EVALUATION_METRICS
                    values = {name: float(getattr(event, name)) for name in names}
                    finite = {name: value for name, value in values.items() if math.isfinite(value)}
                    return [MetricPoint(event.step, self._started_at + self._last_seconds, finite)] if finite else []
        return []

    def _convert_sample(self, sample: Sampled) -> TextSample:
        text = printable(f"{sample.prompt} {sample.text}")
        return TextSample(sample.step, self._started_at + self._last_seconds, text)

    def _is_new(self, event: Step | Evaluated | Sampled) -> bool:
        """Return True, and remember the step, if no event of this kind had this step or a later one."""
        name = event_name(type(event))
        if event.step <= self._last_steps.get(name, -1):
            return False
        self._last_steps[name] = event.step
        return True


def _decode(rows: Iterable[dict[str, object]], kind: type[Sampled]) -> list[Sampled]:
    return [event for row in rows if isinstance(event := event_from_dict(row), kind)]


def _is_setting(value: object) -> bool:
    return isinstance(value, (str, int, bool)) or (isinstance(value, float) and math.isfinite(value))


def send_items(
    tracker: Tracker, items: Sequence[MetricPoint | TextSample], on_progress: Callable[[], None] = lambda: None
) -> None:
    """Send metric points and text samples to a tracker in their order, and call `on_progress` after each call of it."""
    start = 0
    for end in range(1, len(items) + 1):
        is_last = end == len(items) or end - start >= MAX_POINTS or type(items[end]) is not type(items[start])
        if isinstance(item := items[end - 1], TextSample):
            tracker.log_sample(item)
            on_progress()
            start = end
        elif is_last:
            tracker.log_points([point for point in items[start:end] if isinstance(point, MetricPoint)])
            on_progress()
            start = end
