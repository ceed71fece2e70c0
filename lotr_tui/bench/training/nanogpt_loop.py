"""Training loop of the baseline of the Transformer, in the style of nanoGPT's `train.py`.

`python -m lotr_tui.bench.training.nanogpt_loop OPTIONS`, with JSON options `settings` and `threads`, prints the tokens
per second of a training of the size of the preset `gpt` with these settings.
"""

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from engine.config import Config
from engine.data.dataset import load_dataset
from engine.data.tokenizers.base import TokenIds
from engine.presets import get_preset
from engine.training.optim import load_optimizer_tensors, optimizer_tensors
from lotr_tui.bench.training.nanogpt_model import NanoGPT, NanoGPTConfig

PEAK_LR = 1e-3
"""Peak learning rate of nanoGPT's small models."""
MIN_LR_FACTOR = 0.1
WARMUP_FRACTION = 0.02
WEIGHT_DECAY = 0.1
CLIP = 1.0
WARMUP_STEPS, TIMED_STEPS = 2, 8


class NanoGPTTraining:
    """Network, optimizer and batches of a training, which continues from the checkpoint in a file."""

    def __init__(self, model: NanoGPT, ids: TokenIds, batch_size: int, lr: float = PEAK_LR) -> None:
        """Prepare to train on windows of the text `ids` `[time]`."""
        self.model = model
        self.batch_size = batch_size
        self.lr = lr
        self.num_steps = 0
        self.seconds = 0.0
        """Training time until the latest checkpoint was read or written."""
        self._ids = torch.from_numpy(np.asarray(ids, np.int32))
        matrices = [parameter for parameter in model.parameters() if parameter.ndim > 1]
        vectors = [parameter for parameter in model.parameters() if parameter.ndim == 1]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=True)

    @property
    def tokens_per_step(self) -> int:
        """Number of tokens that a step predicts."""
        return self.batch_size * self.model.config.context_size

    def next_batch(self) -> tuple[Tensor, Tensor]:
        """Return inputs and targets `[batch, context]` from random places, which depend on the number of the step."""
        context = self.model.config.context_size
        generator = torch.Generator().manual_seed(self.num_steps)
        starts = torch.randint(len(self._ids) - context, (self.batch_size,), generator=generator)
        windows = torch.stack([self._ids[start : start + context + 1] for start in starts.tolist()]).long()
        return windows[:, :-1], windows[:, 1:]

    def train_step(self, progress: float) -> Tensor:
        """Train on the next batch and return its loss. `progress` is the fraction of the training that is done."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr * lr_factor(progress)
        inputs, targets = self.next_batch()
        logits = self.model(inputs)
        loss = functional.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        self.num_steps += 1
        return loss.detach()

    def save(self, path: Path, seconds: float) -> None:
        """Write a checkpoint after `seconds` of training."""
        tensors = {f"model.{name}": parameter.detach() for name, parameter in self.model.named_parameters()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer_tensors(self.optimizer).items()}
        temporary = path.with_suffix(".tmp")
        save_file(tensors, temporary, {"steps": str(self.num_steps), "seconds": str(seconds)})
        temporary.replace(path)
        self.seconds = seconds

    def load(self, path: Path) -> None:
        """Continue from a checkpoint that `save` wrote."""
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        parts = {
            part: {name.removeprefix(part): tensor for name, tensor in tensors.items() if name.startswith(part)}
            for part in ("model.", "optimizer.")
        }
        self.model.load_state_dict(parts["model."])
        load_optimizer_tensors(self.optimizer, parts["optimizer."])
        self.num_steps, self.seconds = int(metadata["steps"]), float(metadata["seconds"])

    def train_for(self, seconds: float, checkpoint: Path, save_interval: float, report: Callable[[str], None]) -> None:
        """Train until `seconds` are over, including those before the checkpoint that was loaded.

        The learning rate follows the time. A checkpoint is written every `save_interval` seconds, and at the end.
        """
        started = time.perf_counter() - self.seconds
        while (elapsed := time.perf_counter() - started) < seconds:
            loss = self.train_step(elapsed / seconds)
            if elapsed - self.seconds >= save_interval:
                report(f"nanoGPT: {elapsed:.0f} of {seconds:.0f} s, step {self.num_steps}, loss {loss.item():.3f}")
                self.save(checkpoint, elapsed)
        self.save(checkpoint, elapsed)


def lr_factor(progress: float) -> float:
    """Return the learning rate as a fraction of its peak: a linear warm-up, then a cosine to a tenth."""
    if progress < WARMUP_FRACTION:
        return max(0.01, progress / WARMUP_FRACTION)
    decay = min(1.0, (progress - WARMUP_FRACTION) / (1 - WARMUP_FRACTION))
    return MIN_LR_FACTOR + (1 - MIN_LR_FACTOR) * 0.5 * (1 + math.cos(math.pi * decay))


def time_loop(config: Config) -> float:
    """Return the tokens per second of a training of the size of `config` on its corpus."""
    dataset = load_dataset(config.data)
    model = NanoGPT(NanoGPTConfig.from_preset(config, len(dataset.tokenizer)))
    training = NanoGPTTraining(model, dataset.train, config.training.batch_size)
    for _ in range(WARMUP_STEPS):
        training.train_step(0.5)
    started = time.perf_counter()
    for _ in range(TIMED_STEPS):
        training.train_step(0.5)
    return TIMED_STEPS * training.tokens_per_step / (time.perf_counter() - started)


if __name__ == "__main__":
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options["threads"])
    print(json.dumps(time_loop(get_preset("gpt").with_values(**options["settings"]))))
