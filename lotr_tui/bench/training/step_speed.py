"""CPU time of a training step, and speed of exact scoring, by size of the vocabulary.

`python -m lotr_tui.bench.training.step_speed FILE SOFTMAX_SAMPLES` prints the result of `time_steps` on FILE with one
thread as JSON.
"""

import json
import statistics
import sys
import time
from pathlib import Path

import torch

from engine.analysis.perplexity import evaluate
from engine.data.dataset import load_dataset
from engine.presets import get_preset
from engine.training.trainer import Trainer

TIMED_STEPS = 5
SCORED_TOKENS = 2048


def time_steps(path: Path, softmax_samples: int) -> dict[str, float]:
    """Train a few steps of `tiny` on a text with all its words, and evaluate a part of the validation split.

    Return the median CPU seconds of a step and the scored tokens per CPU second. With `softmax_samples=0`, the softmax
    is over the whole vocabulary.
    """
    config = get_preset("tiny").with_values(
        corpus=str(path), corpus_format="text", min_count=1, softmax_samples=softmax_samples, label_smoothing=0.0
    )
    dataset = load_dataset(config.data)
    trainer = Trainer(config, dataset, torch.device("cpu"))
    trainer.train_step()  # not counted: the first step allocates memory
    step_seconds = []
    for _ in range(TIMED_STEPS):
        started = time.process_time()
        trainer.train_step()
        step_seconds.append(time.process_time() - started)
    ids = dataset.valid[:SCORED_TOKENS]
    started = time.process_time()
    evaluate(trainer.state.network, ids)
    rate = len(ids) / (time.process_time() - started)
    return {"step_seconds": statistics.median(step_seconds), "scored_tokens_per_second": rate}


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(time_steps(Path(sys.argv[1]), int(sys.argv[2]))))
