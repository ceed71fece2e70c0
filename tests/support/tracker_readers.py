"""What experiment trackers have stored, read by their own libraries."""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

import pytest

WANDB_HEADER_BYTES, WANDB_BLOCK_BYTES, WANDB_RECORD_HEADER_BYTES = 7, 32_768, 7


@dataclass
class StoredRun:
    """Content of a run in a tracker."""

    metrics: dict[str, dict[int, float]]
    """Values by metric and step."""
    counts: dict[str, int]
    """Number of stored values by metric, including repetitions."""
    samples: dict[int, str]
    """Texts by step."""
    settings: dict[str, str]
    model_files: set[str]
    """Names of the files of the final model."""


def read_tensorboard(run_dir):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(
        str(run_dir / "tensorboard"), size_guidance={accumulator.SCALARS: 0, accumulator.TENSORS: 0}
    )
    events.Reload()
    scalars = {tag: events.Scalars(tag) for tag in events.Tags()["scalars"]}
    texts = {
        tag: [(event.step, event.tensor_proto.string_val[0].decode()) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if tag.endswith("text_summary")
    }
    rows = [row.strip("| ").split(" | ") for row in texts["settings/text_summary"][0][1].splitlines()[2:]]
    model = texts.get("model/text_summary")
    return StoredRun(
        {tag: {event.step: event.value for event in values} for tag, values in scalars.items()},
        {tag: len(values) for tag, values in scalars.items()},
        {step: text.strip() for step, text in texts["sample/text_summary"]},
        {row[0]: row[1] if len(row) > 1 else "" for row in rows},
        {path.name for path in Path(model[0][1].strip()).iterdir()} if model else set(),
    )


def read_wandb(run_dir):
    """Read the files of offline runs, records of wandb's protocol in the log format of LevelDB."""
    internal = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    import json

    stored = StoredRun({}, {}, {}, {}, set())
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        for content in _wandb_records(path.read_bytes()):
            record = internal.Record()
            record.ParseFromString(content)
            if record.HasField("history"):
                row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
                step = int(row["_step"])
                for name, value in row.items():
                    if name == "sample_text":
                        stored.samples[step] = value
                    elif not name.startswith("_") and isinstance(value, (int, float)):
                        stored.metrics.setdefault(name, {})[step] = value
                        stored.counts[name] = stored.counts.get(name, 0) + 1
            for item in record.run.config.update:
                stored.settings[item.key] = str(json.loads(item.value_json))
            for item in record.summary.update:
                name = item.key or item.nested_key[0]
                if name == "test_perplexity":
                    stored.metrics[name] = {0: json.loads(item.value_json)}
            stored.model_files |= {entry.path for entry in record.artifact.manifest.contents}
            request = record.request.log_artifact
            stored.model_files |= {entry.path for entry in request.artifact.manifest.contents}
    return stored


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


def read_mlflow(run_dir):
    client_module = pytest.importorskip("mlflow.tracking")
    client = client_module.MlflowClient(tracking_uri=f"sqlite:///{run_dir.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("lotr-tui")
    (run,) = client.search_runs([experiment.experiment_id], f"tags.mlflow.runName = '{run_dir.name}'")
    histories = {name: client.get_metric_history(run.info.run_id, name) for name in run.data.metrics}
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    return StoredRun(
        {name: {metric.step: metric.value for metric in history} for name, history in histories.items()},
        {name: len(history) for name, history in histories.items()},
        {int(path.stem.split("-")[1]): path.read_text().strip() for path in (folder / "samples").glob("*.txt")},
        dict(run.data.params),
        {path.name for path in (folder / "model").glob("*")},
    )


def read_trackio(run_dir):
    trackio = pytest.importorskip("trackio")
    (run,) = [run for run in trackio.Api().runs("lotr-tui") if run.name == run_dir.name]
    stored = StoredRun({}, {}, {}, {name: str(value) for name, value in run.config.items()}, set())
    for row in trackio.SQLiteStorage.get_logs("lotr-tui", run.name):
        for name, value in row.items():
            if name == "sample":
                stored.samples[row["step"]] = value["_value"].strip()
            elif isinstance(value, (int, float)) and name != "step":
                stored.metrics.setdefault(name, {})[row["step"]] = value
                stored.counts[name] = stored.counts.get(name, 0) + 1
    database = Path(os.environ["TRACKIO_DIR"])
    if any(database.glob("artifacts/**/*")):
        trackio.init("lotr-tui", name="reader", embed=False, auto_log_gpu=False, auto_log_cpu=False)
        artifact = trackio.use_artifact(f"{run.name}-model:latest")
        stored.model_files = {
            path.name for path in Path(artifact.download(str(database / "download"))).rglob("*") if path.is_file()
        }
        trackio.finish()
    return stored


READERS = {"tensorboard": read_tensorboard, "wandb": read_wandb, "mlflow": read_mlflow, "trackio": read_trackio}
