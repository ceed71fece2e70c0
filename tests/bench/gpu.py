"""The group that checks what needs an NVIDIA GPU."""

import tempfile
from pathlib import Path

import torch

from engine.data.dataset import load_dataset
from engine.models.base import score_sequence
from engine.presets import PRESETS
from engine.runtime.distributed import SINGLE_PROCESS
from engine.training.optim import NETWORKS
from tests.bench.measuring import Figure, Skip
from tests.support.distributed_worker import train_and_summarize
from tests.support.training import NO_DROPOUT


def measure_gpu(_):
    """Agreement of an NVIDIA GPU with the CPU, and exact resume on it."""
    if not torch.cuda.is_available():
        raise Skip("PyTorch finds no GPU on this machine")
    for preset in ("tiny", "default", "gpt-tiny"):
        yield from check_device(preset, "cuda")


def check_device(preset, device, num_steps=6):
    """Compare predictions, gradients and a resumed training on a device with the CPU and an uninterrupted one."""
    torch.backends.cudnn.allow_tf32 = False
    config = PRESETS[preset].with_values(epochs=1, device=device, precision="fp32", checkpoint_seconds=0.0)
    dataset = load_dataset(config.data)
    network = NETWORKS[config.model.architecture].build(config, dataset).to(device)
    decoder = network.to_decoder(dataset.tokenizer)
    ids = dataset.valid[:500]
    difference = abs(score_sequence(network, ids) - score_sequence(decoder, ids)).max()
    yield Figure(f"{preset}, log-probabilities, difference from numpy", "nats", (difference,))

    def train(config, **options):
        return train_and_summarize(config, dataset, SINGLE_PROCESS, **options)

    plain = config.with_values(**{name: value for name, value in NO_DROPOUT.items() if name in vars(config.model)})
    results = [train(plain.with_values(device=name), stop_after=num_steps)["steps"] for name in ("cpu", device)]
    norms = [abs(ours[2] / expected[2] - 1) for expected, ours in zip(*results, strict=True)]
    yield Figure(f"{preset}, norms of gradients, relative difference from the CPU", "", (max(norms),))
    short = config.with_values(max_eval_tokens=500)
    whole, first = train(short, stop_after=2 * num_steps), train(short, stop_after=num_steps)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder, "resume")
        checkpoint.write_bytes(first["snapshot"])
        rest = train(short, checkpoint=checkpoint, stop_after=2 * num_steps)
    same = first["steps"] + rest["steps"] == whole["steps"]
    yield Figure(f"{preset}, resumed training, 1 if bit for bit the same", "", (float(same),))
    assert (same, difference < 1e-3, max(norms) < 1e-2) == (True, True, True), preset
