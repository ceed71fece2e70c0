"""Training speed on a GPU, by preset and precision, and compared with the CPU."""

import json
from collections.abc import Iterator

from lotr_tui.bench.measurement import Measurement, SkippedMeasurement, median_of_runs
from lotr_tui.bench.processes import run_module

PRESETS = {"default": "1 layer of 400 with a mogrifier", "base": "1 layer of 768", "paper": "3 layers of up to 1,150"}
"""Measured presets and the sizes of their LSTMs."""
CPU_STEPS, GPU_STEPS = 10, 100
"""Number of timed steps on each device."""
MEGABYTE = 1e6


def measure_gpu(repeat: int) -> Iterator[Measurement | SkippedMeasurement]:
    """Measure training steps on the first GPU in fp32 (with TF32 where PyTorch allows it) and in bf16."""
    gpu = run_module("lotr_tui.bench.training.gpu_speed", "{}")["gpu"]
    if gpu is None:
        yield SkippedMeasurement("training on a GPU", "PyTorch finds no GPU on this machine")
        return
    for preset, sizes in PRESETS.items():
        name = f"training, {preset} ({sizes}) on {gpu}"
        rates, megabytes = {}, []
        for precision in ("fp32", "bf16"):
            results = [_measure_steps(preset, precision, "cuda", GPU_STEPS) for _ in range(repeat)]
            rates[precision] = [result["tokens_per_second"] for result in results]
            megabytes.append([result["peak_bytes"] / MEGABYTE for result in results])
            yield median_of_runs(f"{name}, {precision}", "tokens/s", rates[precision])
        ratios = [bf16 / fp32 for bf16, fp32 in zip(rates["bf16"], rates["fp32"], strict=True)]
        yield median_of_runs(f"{name}, ratio of bf16 to fp32", "", ratios)
        yield median_of_runs(f"{name}, peak GPU memory", "MB", [max(pair) for pair in zip(*megabytes, strict=True)])
        if preset == "default":
            cpu = [_measure_steps(preset, "fp32", "cpu", CPU_STEPS)["tokens_per_second"] for _ in range(repeat)]
            ratios = [fp32 / rate for fp32, rate in zip(rates["fp32"], cpu, strict=True)]
            yield median_of_runs(f"{name}, ratio of fp32 to all cores of the CPU", "", ratios)


def _measure_steps(preset: str, precision: str, device: str, steps: int) -> dict[str, float]:
    """Measure training steps in a new process: tokens per second, and on a GPU the peak memory in bytes."""
    options = json.dumps({"preset": preset, "precision": precision, "device": device, "steps": steps})
    result: dict[str, float] = run_module("lotr_tui.bench.training.gpu_speed", options)
    return result
