"""Write the copies of runs that the assets hold, with matrices in 8 bits: `python -m tests.tools.compact RUN DIR`.

A copy can be played, evaluated and fine-tuned, but not resumed.
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np

from engine.data.speakers import CAST_FILE
from engine.data.tokenizers import TOKENIZER_FILES
from engine.events import Checkpointed, Sampled, Step, event_to_dict
from engine.models.pretrained.names import BASE_FILE
from engine.runs import directory, loading
from engine.runs.directory import read_events
from engine.storage.files import write_folder
from engine.storage.tensor_file import SCALE_SUFFIX, quantize_rows, serialize_weights, to_float32

MAX_EVENTS = {Step: 200, Sampled: 50}
"""Number of events of a kind that a copy keeps; a chart has about as many columns as steps are kept."""


def write_compact_copy(run_dir, folder):
    config = directory.read_config(run_dir)
    # Without the configuration that PEFT reads: it would take the 8 bits of an adapter for its numbers.
    names = (directory.CONFIG_FILE, BASE_FILE, TOKENIZER_FILES[config.data.tokenizer])
    names = (*names, CAST_FILE, directory.DIALOGUE_FILE, directory.WHO_FILE)
    contents = {name: file.read_bytes() for name in names if (file := run_dir / name).is_file()}
    contents |= {name: thin_events(run_dir / name) for name in (directory.METRICS_FILE, directory.SAMPLES_FILE)}
    if config.model.lora_rank:
        adapter = loading.read_adapter(run_dir, config.model, None)
        tensors = quantize({name: to_float32(tensor) for name, tensor in adapter.items()})
        contents[directory.ADAPTER_FILE] = loading.serialize_adapter(tensors, run_dir)
    else:
        contents[directory.MODEL_FILE] = serialize_weights(quantize(loading.load_model(run_dir).decoder.weights))
    write_folder(folder, contents)
    shutil.copystat(run_dir / directory.CONFIG_FILE, folder / directory.CONFIG_FILE)  # the start of the training


def quantize(weights):
    tensors = {}
    for name, weight in weights.items():
        if weight.ndim == 2 and not name.startswith("punctuation_softmax."):
            tensors[name], tensors[name + SCALE_SUFFIX] = quantize_rows(weight)
        else:
            tensors[name] = weight
    return tensors


def thin_events(path):
    """Return the lines of a file of events with fewer steps and samples, and the last event about the best weights."""
    events, numbers = list(read_events(path)), {}
    for number, event in enumerate(events):
        if not isinstance(event, Checkpointed) or event.file in directory.WEIGHT_FILES:
            numbers.setdefault(type(event), []).append(number)
    kept = set(numbers.pop(Checkpointed, [])[-1:])
    for kind, candidates in numbers.items():
        count = min(len(candidates), MAX_EVENTS.get(kind, len(candidates)))
        kept.update(candidates[round(index)] for index in np.linspace(0, len(candidates) - 1, count))
    return b"".join(json.dumps(event_to_dict(events[number])).encode() + b"\n" for number in sorted(kept))


if __name__ == "__main__":
    write_compact_copy(directory.resolve_run(sys.argv[1]), Path(sys.argv[2]))
