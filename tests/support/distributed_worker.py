"""Program that `test_distributed.py` starts with torchrun: trains each configuration of a file, whole and interrupted.

    torchrun --nproc-per-node 2 -m tests.support.distributed_worker FOLDER

The program reads `FOLDER/configurations.json` and writes `FOLDER/results.json`.
"""

import hashlib
import json
import sys
from pathlib import Path
from unittest.mock import patch

from engine.config import Config
from engine.control import CommandQueue
from engine.data.dataset import load_dataset
from engine.events import Evaluated, Finished, Snapshot, Step
from engine.runs.directory import MODEL_FILE, RESUME_FILE
from engine.runtime.distributed import distributed_context
from engine.storage.tensor_file import serialize_weights
from engine.training import TrainingInput, trainer
from engine.training.state import ResumeCheckpoint
from engine.training.trainer import train
from tests.support.networks import random_base


@patch.object(trainer, "REPORT_INTERVAL", 0.0)
def train_and_summarize(config, dataset, distributed, stop_after=float("inf"), checkpoint=None, folder=None):
    """Train, at most until step `stop_after`; checkpoints and best models are written into `folder`."""
    result = {"steps": [], "evaluated": []}
    step = 0

    def cancelled():
        return step >= stop_after

    saved = None if checkpoint is None else ResumeCheckpoint(checkpoint)
    source = TrainingInput(dataset, base=random_base(config.model, dataset.tokenizer))
    commands = CommandQueue(cancelled=cancelled)
    for event in train(config, source, "a-run", commands, saved, distributed=distributed):
        if isinstance(event, Step):
            step = event.step
            result["steps"].append([event.step, event.train_perplexity, event.gradient_norm, event.lr])
        elif isinstance(event, Evaluated):
            result["evaluated"].append([event.step, event.valid_perplexity, event.is_best])
            if folder is not None and event.is_best and event.adapter is None:
                (folder / MODEL_FILE).write_bytes(serialize_weights(event.model.weights))
        elif isinstance(event, Snapshot) and folder is not None:
            (folder / RESUME_FILE).write_bytes(event.content)
        elif isinstance(event, Finished):
            result["test"] = event.test_perplexity
            weights = sorted(event.model.weights.items())
            result["sha256"] = hashlib.sha256(b"".join(value.tobytes() for _, value in weights)).hexdigest()
    return result


def main(folder):
    """Train each configuration whole, then interrupted in the middle and resumed."""
    configs = [Config.from_json(text, "") for text in json.loads((folder / "configurations.json").read_text())]
    dataset = load_dataset(configs[0].data)
    results, step_counts = [], []
    with distributed_context() as distributed:
        for config in configs:
            whole = train_and_summarize(config, dataset, distributed)
            middle = distributed.broadcast_object(lambda whole=whole: len(whole["steps"]) // 2)
            written_to = folder if distributed.process.rank == 0 else None
            first = train_and_summarize(config, dataset, distributed, stop_after=middle, folder=written_to)
            distributed.broadcast_object(lambda: "the checkpoint is written")
            rest = train_and_summarize(config, dataset, distributed, checkpoint=folder / RESUME_FILE)
            results.append({"whole": whole, "first": first, "rest": rest})
            step_counts.append(len(whole["steps"]))
        if distributed.process.rank == 0:
            (folder / "results.json").write_text(json.dumps(results))
        else:
            (folder / f"steps-{distributed.process.rank}.json").write_text(json.dumps(step_counts))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
