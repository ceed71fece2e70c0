"""Speed of training steps on one device.

`python -m lotr_tui.bench.training.gpu_speed OPTIONS`, with JSON options `preset`, `precision`, `device` and `steps`,
prints tokens per second and peak GPU memory as JSON; with `{}`, it prints the name of the GPU, or null.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import torch

from engine.config import Config
from engine.data.dataset import Dataset, load_dataset
from engine.presets import get_preset
from engine.runtime.allocator import disable_heap_trimming
from engine.training.trainer import Trainer
from lotr_tui.bench.training.synthetic_text import write_synthetic_text

WARMUP_STEPS = 5
NUM_BYTES, NUM_DISTINCT_WORDS = 2_000_000, 10_000
"""Size of the text for the presets that are meant for long texts; Penn Treebank has as many distinct words."""


def measure_steps(preset: str, precision: str, device: str, steps: int) -> dict[str, float]:
    """Train `steps` windows and return tokens per second, and the peak memory of the GPU in bytes (0 on a CPU).

    The preset `default` reads the bundled dialogues, all others a generated text.
    """
    disable_heap_trimming()
    config, dataset = _load(get_preset(preset).with_values(precision=precision, device=device))
    trainer = Trainer(config, dataset, torch.device(device))
    for _ in range(WARMUP_STEPS):
        trainer.train_step()
    _synchronize(device)
    started, num_tokens = time.perf_counter(), 0
    for _ in range(steps):
        num_tokens += trainer.train_step().num_tokens
    _synchronize(device)
    seconds = time.perf_counter() - started
    peak_bytes = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return {"tokens_per_second": num_tokens / seconds, "peak_bytes": peak_bytes}


def _load(config: Config) -> tuple[Config, Dataset]:
    """Return the configuration with the corpus to measure, and its dataset."""
    if config.preset == "default":
        return config, load_dataset(config.data)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "text.txt"
        write_synthetic_text(path, NUM_BYTES, NUM_DISTINCT_WORDS)
        config = config.with_values(corpus=str(path), corpus_format="text", min_count=1)
        return config, load_dataset(config.data)


def _synchronize(device: str) -> None:
    """Wait until the GPU has computed everything."""
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    print(json.dumps(measure_steps(**options) if options else {"gpu": gpu}))
