"""Compact copies of runs: weights in half precision or 8 bits, fewer events, and nothing to resume from."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from engine.data.arrays import Float32Array
from engine.errors import RunError
from engine.events import Checkpointed, RecordedEvent, Sampled, Step, event_to_dict
from engine.models.pretrained.names import BASE_FILE
from engine.runs import adapter_files, directory
from engine.runs.directory import CONFIG_FILE, METRICS_FILE, SAMPLES_FILE
from engine.runs.loading import load_model
from engine.runs.metrics import read_events
from engine.storage.files import check_is_new, write_folder
from engine.storage.tensor_file import SCALE_SUFFIX, quantize_rows, serialize_weights, to_float32

CompactPrecision = Literal["fp16", "int8"]

COPIED_FILES = (BASE_FILE, adapter_files.ADAPTER_CONFIG_FILE, *directory.DIALOGUE_FILES)
"""Files that are copied as they are, where a run has them."""
MAX_EVENTS: dict[type[RecordedEvent], int] = {Step: 200, Sampled: 50}
"""Number of events of a kind that are kept at most; a chart has about as many columns as steps are kept."""


@dataclass(frozen=True)
class CompactCopy:
    """Sizes in bytes: of the weights before and in the copy, and of all files of the copy."""

    model_bytes_before: int
    model_bytes: int
    total_bytes: int


def write_compact_copy(run_dir: Path, folder: Path, precision: CompactPrecision) -> CompactCopy:
    """Write a copy of a run that is as small as possible and can be played and evaluated, but not resumed.

    The matrices are stored in half precision, or in 8 bits with one scale per row; all other tensors are unchanged.
    The folder must be new, and appears once it is complete.
    """
    check_is_new(folder)
    config = directory.read_config(run_dir)
    contents = {name: _thin_events(run_dir / name) for name in (METRICS_FILE, SAMPLES_FILE)}
    contents[CONFIG_FILE] = config.to_json().encode()
    if config.model.lora_rank:
        weights_file, sha256 = adapter_files.ADAPTER_FILE, adapter_files.read_reference(run_dir).sha256
        adapter = {name: to_float32(each) for name, each in adapter_files.read_adapter(run_dir, config.model).items()}
        contents[weights_file] = adapter_files.serialize_adapter(_compact_tensors(adapter, precision), sha256)
    else:
        weights_file, decoder = directory.MODEL_FILE, load_model(run_dir).decoder
        contents |= directory.tokenizer_files(decoder.tokenizer)
        contents[weights_file] = serialize_weights(_compact_tensors(decoder.weights, precision))
    contents |= {name: file.read_bytes() for name in COPIED_FILES if (file := run_dir / name).is_file()}
    write_folder(folder, contents)
    shutil.copystat(run_dir / CONFIG_FILE, folder / CONFIG_FILE)  # its time is the start of the training
    before = (run_dir / weights_file).stat().st_size
    return CompactCopy(before, len(contents[weights_file]), sum(map(len, contents.values())))


def _compact_tensors(weights: Mapping[str, Float32Array], precision: CompactPrecision) -> dict[str, npt.NDArray[Any]]:
    tensors: dict[str, npt.NDArray[Any]] = {}
    for name, weight in weights.items():
        if weight.ndim != 2 or name.startswith("punctuation_softmax."):
            tensors[name] = weight
        elif precision == "int8":
            tensors[name], tensors[name + SCALE_SUFFIX] = quantize_rows(weight)
        else:
            if (largest := float(np.abs(weight).max())) > float(np.finfo(np.float16).max):
                raise RunError(f"{name} holds {largest:g}, too large for half precision; use --precision int8")
            tensors[name] = weight.astype(np.float16)
    return tensors


def _thin_events(path: Path) -> bytes:
    """Return the lines of a file of events with fewer steps and samples, and the last event about the best weights."""
    events = list(read_events(path))
    numbers: dict[type[RecordedEvent], list[int]] = {}
    for number, event in enumerate(events):
        if not isinstance(event, Checkpointed) or event.file in directory.WEIGHT_FILES:
            numbers.setdefault(type(event), []).append(number)
    kept = set(numbers.pop(Checkpointed, [])[-1:])
    for kind, candidates in numbers.items():
        count = min(len(candidates), MAX_EVENTS.get(kind, len(candidates)))
        kept.update(candidates[round(index)] for index in np.linspace(0, len(candidates) - 1, count))
    return b"".join(json.dumps(event_to_dict(events[number])).encode() + b"\n" for number in sorted(kept))
