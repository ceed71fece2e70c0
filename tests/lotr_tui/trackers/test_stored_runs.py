"""Each library finds our numbers, texts, settings and model in what was sent, also while a training runs."""

import json
import struct
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from engine.events import Evaluated, Finished, Resume, Sampled, Started, Step
from tests.support.app import training_events
from tests.support.runs import CONFIG, append_events, record_run

pytestmark = pytest.mark.slow

WANDB_HEADER_BYTES, WANDB_BLOCK_BYTES, WANDB_RECORD_HEADER_BYTES = 7, 32_768, 7


def stored_run(points, samples, settings):
    """Return the values of points by metric and step, their numbers, the texts by step, and the settings."""
    metrics, counts = {}, Counter()
    for name, step, value in points:
        metrics.setdefault(name, {})[step] = value
        counts[name] += 1
    return SimpleNamespace(metrics=metrics, counts=counts, samples=samples, settings=settings)


def read_tensorboard(run_dir):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plugin_data = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    everything = {accumulator.SCALARS: 0, accumulator.TENSORS: 0}
    events = accumulator.EventAccumulator(str(run_dir / "tensorboard"), size_guidance=everything)
    events.Reload()
    points = [(tag, event.step, event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]
    texts = events.Tensors("sample/text_summary")
    samples = {event.step: event.tensor_proto.string_val[0].decode().strip() for event in texts}
    content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    settings = plugin_data.HParamsPluginData.FromString(content).session_start_info.hparams.items()
    return stored_run(
        points, samples, {name: f"{each.number_value:.0f}" for name, each in settings if each.number_value}
    )


def read_wandb(run_dir):
    """Read the files of offline runs, records of wandb's protocol in the log format of LevelDB."""
    internal = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    points, samples, settings = [], {}, {}
    paths = sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))
    for content in (record for path in paths for record in _wandb_records(path.read_bytes())):
        record = internal.Record()
        record.ParseFromString(content)
        row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
        samples |= {int(row["_step"]): row.pop("sample_text")} if "sample_text" in row else {}
        numbers = {name: value for name, value in row.items() if isinstance(value, (int, float)) and name[0] != "_"}
        points += [(name, int(row["_step"]), value) for name, value in numbers.items()]
        settings |= {item.key: str(json.loads(item.value_json)) for item in record.run.config.update}
        summary = {item.key or item.nested_key[0]: item.value_json for item in record.summary.update}
        points += [(name, 0, json.loads(summary[name])) for name in summary if name == "test_perplexity"]
    return stored_run(points, samples, settings)


def _wandb_records(content):
    assert content.startswith(b":W&B")
    records, partial, position = [], b"", WANDB_HEADER_BYTES
    while position + WANDB_RECORD_HEADER_BYTES <= len(content):
        left = WANDB_BLOCK_BYTES - position % WANDB_BLOCK_BYTES
        if left < WANDB_RECORD_HEADER_BYTES:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", content[position : position + WANDB_RECORD_HEADER_BYTES])
        position += WANDB_RECORD_HEADER_BYTES
        partial += content[position : position + length]
        position += length
        if kind in (1, 4):  # a whole record, or the last part of one
            records.append(partial)
            partial = b""
    return records


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb}


each_tracker = pytest.mark.parametrize("name", READERS)


def complete_training():
    events = training_events(epochs=3)
    model = next(event.model for event in reversed(events) if isinstance(event, Evaluated))
    return [*events, Finished("done", "r", 3.0, 103.75, 101.5, 6.0, model)]


def send(run_dir, name):
    """Send a run in a new process, as the libraries keep state for the life of a process."""
    code = (
        "import sys; from pathlib import Path; from lotr_tui.trackers.follower import send_run; "
        "send_run(Path(sys.argv[1]), sys.argv[2])"
    )
    process = subprocess.run([sys.executable, "-c", code, str(run_dir), name], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr


KILLED_SENDER = """
import os, sys, time
from pathlib import Path
from engine.runs import directory
from lotr_tui.trackers import follower, libraries
directory.READ_CHUNK_BYTES = 1_000
open_tracker, calls = libraries.open_tracker, iter(range(1000))
def open_for_some_points(*arguments):
    tracker = open_tracker(*arguments)
    log = tracker.log
    def log_some(point):
        if next(calls) == 9:
            time.sleep(1)  # a thread of the package stores what it has
            os._exit(9)
        log(point)
    tracker.log = log_some
    return tracker
libraries.open_tracker = open_for_some_points
follower.send_run(Path(sys.argv[1]), sys.argv[2])
"""


def expected_metrics(events):
    metrics = {}
    for event in events:
        names = ("train_perplexity", "lr", "gradient_norm", "tokens_per_second") if isinstance(event, Step) else ()
        for field in (*names, *(("valid_perplexity",) if isinstance(event, Evaluated) else ())):
            metrics.setdefault(field, {})[event.step] = getattr(event, field)
    return metrics


@each_tracker
def test_library_returns_a_resumed_training_without_repetitions(runs_dir, name):
    """The part before a checkpoint is sent first; the resumed training repeats the steps after the checkpoint."""
    pytest.importorskip(name)
    events = complete_training()
    cut = next(i for i, event in enumerate(events) if isinstance(event, Step) and event.step == 22)
    run_dir = record_run(runs_dir, "r", events[:cut])
    send(run_dir, name)
    again = [event for event in events[cut - 4 :] if not isinstance(event, Started)]
    append_events(run_dir, [Resume(getattr(again[0], "step", 0)), *again])
    send(run_dir, name)
    stored = READERS[name](run_dir)
    for metric, values in expected_metrics(events).items():
        assert stored.metrics[metric] == pytest.approx(values, rel=1e-6), metric
        assert stored.counts[metric] == len(values), metric
    assert stored.samples == {e.step: f"{e.prompt} {e.text}" for e in events if isinstance(e, Sampled)}
    assert stored.settings["hidden_size"] == str(CONFIG.model.hidden_size)
    assert stored.settings["parameters"] == "752239"
    results = {metric for metric in stored.metrics if metric.endswith("test_perplexity")}
    assert [list(stored.metrics[metric].values()) for metric in results] == [[pytest.approx(101.5)]]


@each_tracker
def test_killed_process_loses_nothing(runs_dir, name):
    pytest.importorskip(name)
    events = complete_training()
    run_dir = record_run(runs_dir, "r", events)
    killed = subprocess.run([sys.executable, "-c", KILLED_SENDER, str(run_dir), name], capture_output=True, text=True)
    assert killed.returncode == 9, killed.stderr
    send(run_dir, name)
    stored = READERS[name](run_dir)
    for metric, values in expected_metrics(events).items():
        assert stored.metrics[metric] == pytest.approx(values, rel=1e-6), metric
    assert stored.samples == {e.step: f"{e.prompt} {e.text}" for e in events if isinstance(e, Sampled)}
