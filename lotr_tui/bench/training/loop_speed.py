"""Speed of the training loop and of matrix products alone.

`python -m lotr_tui.bench.training.loop_speed loop OPTIONS`, with JSON options `corpus`, `precision` and `threads`,
prints the fields of `TrainingSpeed`; `… matmul OPTIONS`, without `corpus`, prints floating-point operations per second.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from engine.config import Config
from engine.data.dataset import load_dataset
from engine.models.linear import linear
from engine.presets import get_preset
from engine.runtime.allocator import disable_heap_trimming
from engine.training.trainer import Trainer
from lotr_tui.bench.training import notebook_loop

WARMUP_STEPS, TIMED_STEPS = 3, 18


def flops_per_token(config: Config, vocabulary_size: int) -> float:
    """Return the floating-point operations of the matrix products per token, forward and backward."""
    layers = sum(4 * hidden_size * (input_size + hidden_size) for input_size, hidden_size in config.model.layer_sizes())
    return 3 * 2 * (layers + config.model.layer_sizes()[-1][1] * vocabulary_size)


def time_loop(corpus: dict[str, Any], precision: str) -> dict[str, float]:
    """Return the fields of `TrainingSpeed` for the notebook's configuration."""
    disable_heap_trimming()
    config = get_preset("notebook").with_values(**corpus, precision=precision, eval_every_epochs=1000)
    dataset = load_dataset(config.data)
    trainer = Trainer(config, dataset, torch.device("cpu"))
    seconds = [time_full_window(trainer) for _ in range(WARMUP_STEPS + TIMED_STEPS)][WARMUP_STEPS:]
    tokens_per_second = config.training.bptt * config.training.batch_size * TIMED_STEPS / sum(seconds)
    flops_per_second = tokens_per_second * flops_per_token(config, len(dataset.tokenizer))
    return {"tokens_per_second": tokens_per_second, "flops_per_second": flops_per_second}


def time_full_window(trainer: Trainer) -> float:
    """Train until a step has read a complete window, and return the seconds of that step.

    The notebook's loop drops the incomplete window at the end of an epoch, so both loops are timed without it.
    """
    while True:
        started = time.perf_counter()
        result = trainer.train_step()
        seconds = time.perf_counter() - started
        if result.num_tokens == trainer.options.bptt * trainer.options.batch_size:
            return seconds


def time_matmuls(precision: str) -> float:
    """Return floating-point operations per second of PyTorch's fastest product of the size of an LSTM layer."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    num_rows = notebook_loop.BPTT * notebook_loop.BATCH_SIZE
    input_size, output_size = notebook_loop.HIDDEN_SIZE, 4 * notebook_loop.HIDDEN_SIZE
    inputs, weight = torch.randn(num_rows, input_size, dtype=dtype), torch.randn(output_size, input_size, dtype=dtype)
    bias = torch.zeros(output_size, dtype=dtype)
    products: tuple[Callable[[], object], ...] = (lambda: inputs @ weight.t(), lambda: linear(inputs, weight, bias))
    with torch.no_grad():
        return 2 * num_rows * input_size * output_size / min(map(_median_seconds, products))


def _median_seconds(product: Callable[[], object]) -> float:
    product()  # not counted: the first call allocates memory
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    options = json.loads(sys.argv[2])
    torch.set_num_threads(options.pop("threads"))
    task: Callable[..., object] = time_loop if sys.argv[1] == "loop" else time_matmuls
    print(json.dumps(task(**options)))
