"""The group that checks what needs an NVIDIA GPU."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.config import ModelConfig
from engine.data.dataset import load_dataset
from engine.models.base import score_sequence
from engine.models.transformer import TransformerModel
from engine.models.weights import TRANSFORMER_VALUES, weight_shapes
from engine.presets import PRESETS
from engine.runtime.distributed import SINGLE_PROCESS
from engine.training.optim import NETWORKS, Objective, Window, build_optimizer
from engine.training.state import training_memory
from tests.bench.measuring import Figure, Skip
from tests.support.distributed_worker import train_and_summarize
from tests.support.training import NO_DROPOUT


def measure_gpu(_):
    """Agreement of an NVIDIA GPU with the CPU, exact resume on it, and the memory of adapters."""
    if not torch.cuda.is_available():
        raise Skip("PyTorch finds no GPU on this machine")
    for preset in ("tiny", "default", "gpt-tiny"):
        yield from check_device(preset, "cuda")
    yield from check_adapters("cuda")


def check_adapters(device, batch_size=8, bptt=256, num_steps=3):
    """Train an adapter of the layout of SmolLM2-135M, and compare its memory with the one that is stated before."""
    model = ModelConfig(
        architecture="transformer", embedding_size=576, num_layers=30, num_heads=9, num_kv_heads=3, head_size=64,
        feed_forward_size=1536, context_size=1024, lora_rank=32, lora_alpha=64.0, **(TRANSFORMER_VALUES | NO_DROPOUT),
    )  # fmt: skip
    model, num_tokens, losses = replace(model, lora_dropout=0.1, unigram_bias=False), 16_384, []
    config = replace(PRESETS["lora"], model=model).with_values(batch_size=batch_size, bptt=bptt, device=device)
    config, rng = config.with_values(precision="bf16"), np.random.default_rng(0)
    base = {
        name: rng.normal(0, 0.02, shape).astype(np.float32) for name, shape in weight_shapes(model, num_tokens).items()
    }
    ids = torch.from_numpy(rng.integers(3, num_tokens, (bptt, batch_size))).to(device)
    for checkpointing in (False, True):
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before, dropout = torch.cuda.memory_allocated(), torch.Generator(device).manual_seed(0)
        generator = torch.Generator().manual_seed(0)
        network = TransformerModel(model, num_tokens, generator, base, torch.bfloat16).to(device)
        network.checkpoints_gradients = checkpointing
        optimizer = build_optimizer(network, config.training)
        objective = Objective(config.training, ids.flatten().cpu().numpy(), num_tokens, device, torch.bfloat16)
        for _ in range(num_steps):
            loss, total, _ = objective(network, Window(ids, ids.roll(-1, 0)), [], dropout)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
        losses.append(loss.item())
        peak = torch.cuda.max_memory_allocated() - before
        stated = training_memory(config, num_tokens, torch.device(device), checkpointing=checkpointing)
        yield Figure(f"adapter, memory, checkpointing {checkpointing}", "MB", (peak / 1e6,))
        yield Figure(f"adapter, memory as stated, ratio, checkpointing {checkpointing}", "", (stated / peak,))
        assert 0.8 < stated / peak < 1.5
        del network, optimizer, objective, total
    yield Figure("adapter, loss, difference by checkpointing", "nats", (abs(losses[0] - losses[1]),))
    assert abs(losses[0] - losses[1]) < 1e-2


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
