"""Speed of lotr-tui's training loop with a Transformer.

`python -m lotr_tui.bench.training.transformer_loop OPTIONS`, with JSON options `settings` and `threads`, prints the
tokens per second of a training with the preset `gpt` and these settings.
"""

import json
import sys

import torch

from engine.config import Config
from engine.data.dataset import load_dataset
from engine.presets import get_preset
from engine.runtime.allocator import disable_heap_trimming
from engine.training.trainer import Trainer
from lotr_tui.bench.training.loop_speed import time_full_window
from lotr_tui.bench.training.nanogpt_loop import TIMED_STEPS, WARMUP_STEPS


def time_loop(config: Config) -> float:
    """Return the tokens per second of complete windows of a training with `config`."""
    disable_heap_trimming()
    trainer = Trainer(config, load_dataset(config.data), torch.device("cpu"))
    seconds = [time_full_window(trainer) for _ in range(WARMUP_STEPS + TIMED_STEPS)][WARMUP_STEPS:]
    return TIMED_STEPS * config.training.bptt * config.training.batch_size / sum(seconds)


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    print(json.dumps(time_loop(get_preset("gpt").with_values(**options["settings"]))))
