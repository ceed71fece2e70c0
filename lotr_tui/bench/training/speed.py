"""Training: tokens a second beside the plain way and beside the machine's matrix products, and the time to quality."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median as middle
from typing import TYPE_CHECKING, Any

from engine.config import Config, preset
from engine.data.dataset import prepare
from lotr_tui.bench.figures import Figure, Skipped, median
from lotr_tui.bench.subjects import SESSION_COMMAND
from lotr_tui.bench.terminal import BenchError
from lotr_tui.bench.training import notebook_loop as plain

if TYPE_CHECKING:
    from engine.training.trainer import Loop

WARM, UPDATES = 3, 18
PLAIN_EPOCHS = 50
"""Of the notebook."""
NAME = "training, 2 layers of 512"


def train(repeat: int, csv: Path | None) -> Iterator[Figure | Skipped]:
    """The notebook's configuration, trained by ours and by the plain loop in turn; float32, then bfloat16."""
    corpus = {} if csv is None else {"corpus": str(csv)}
    yield from _trained(repeat, corpus, "fp32", against=1.1, share=0.9)
    if has_bf16():
        yield from _trained(repeat, corpus, "bf16", against=1.7)
    else:
        yield Skipped(f"{NAME}, bf16", "this CPU has no bfloat16 products")


def _trained(
    repeat: int, corpus: dict[str, Any], precision: str, against: float, share: float | None = None
) -> Iterator[Figure]:
    rounds = [(_ours(corpus, precision), _product_rate(precision), _plain_rate(corpus)) for _ in range(repeat)]
    name = f"{NAME}, {precision}"
    yield median(name, "tokens/s", [ours["tokens_per_second"] for ours, _, _ in rounds])
    yield median(f"{NAME}, the plain way (fp32)", "tokens/s", [simple for _, _, simple in rounds])
    ratios = [ours["tokens_per_second"] / simple for ours, _, simple in rounds]
    yield median(f"{name}, to the plain way", "", ratios, least=against)
    shares = [ours["work"] / rate for ours, rate, _ in rounds]
    yield median(f"{name}, share of the matrix-product rate", "", shares, least=share)


def quality(repeat: int, csv: Path | None) -> Iterator[Figure]:
    """From the start of `train --preset tiny` to a validation perplexity under Kneser-Ney's, Python's start included.

    Held to the plain way's 50 epochs, which end above it; they are reckoned from three.
    """
    corpus = {} if csv is None else {"corpus": str(csv)}
    rounds = [(seconds_to_quality(csv), _plain_seconds(corpus)) for _ in range(repeat)]
    yield median("train to a valid perplexity under Kneser-Ney's, from a cold start", "s", [a for a, _ in rounds])
    yield median(f"{PLAIN_EPOCHS} epochs of the plain way", "s", [b for _, b in rounds])
    yield median("ratio of the two", "", [a / b for a, b in rounds], limit=0.05)


def seconds_to_quality(csv: Path | None) -> float:
    """Until the first validation below the line to beat is told.

    Raises:
        BenchError: there is none.
    """
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data = [] if csv is None else ["--csv", str(csv)]
        options = ["--preset", "tiny", "--mode", "stream", "--no-tui", "--json", "--runs-dir", folder, *data]
        with subprocess.Popen([*SESSION_COMMAND, "train", *options], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            beaten: float | None = None
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "started":
                    beaten = event["kneser_ney_perplexity"]
                if event["event"] == "evaluated" and beaten is not None and event["valid_perplexity"] < beaten:
                    seconds = time.perf_counter() - started
                    process.kill()
                    return seconds
    raise BenchError("a training of the tiny preset ended above Kneser-Ney's perplexity")


def work_a_token(config: Config, vocabulary_size: int) -> float:
    """Floating-point operations of the matrix products that a token costs, forwards and back."""
    layers = sum(4 * hidden * (inputs + hidden) for inputs, hidden in config.model.layer_sizes())
    return 3 * 2 * (layers + config.model.layer_sizes()[-1][1] * vocabulary_size)


def has_bf16() -> bool:
    """Whether the CPU multiplies in bfloat16 itself."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and any(name in flags.read_text() for name in ("avx512_bf16", "amx_bf16", "bf16 "))


def _plain_rate(corpus: dict[str, Any]) -> float:
    tokens = plain.tokens_an_epoch(len(prepare(preset("notebook").with_values(**corpus).data).train))
    return float(tokens / _plain_epochs(corpus, 2)[-1])


def _plain_seconds(corpus: dict[str, Any]) -> float:
    started = time.perf_counter()
    epochs = _plain_epochs(corpus, 3)
    seconds = time.perf_counter() - started
    return seconds + (PLAIN_EPOCHS - len(epochs)) * middle(epochs)


def _plain_epochs(corpus: dict[str, Any], epochs: int) -> list[float]:
    told = {"corpus": corpus, "epochs": epochs, "threads": _threads()}
    seconds: list[float] = _printed("lotr_tui.bench.training.notebook_loop", told)
    return seconds


def _ours(corpus: dict[str, Any], precision: str) -> dict[str, float]:
    told = {"what": "loop", "corpus": corpus, "precision": precision, "threads": _threads()}
    answer: dict[str, float] = _printed("lotr_tui.bench.training.speed", told)
    return answer


def _product_rate(precision: str) -> float:
    told = {"what": "products", "precision": precision, "threads": _threads()}
    return float(_printed("lotr_tui.bench.training.speed", told))


def _printed(module: str, told: dict[str, Any]) -> Any:
    """What a process of its own prints.

    Raises:
        BenchError: it failed.
    """
    done = subprocess.run([sys.executable, "-m", module, json.dumps(told)], capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"python -m {module} failed: {done.stderr[-300:]}")
    return json.loads(done.stdout)


def _threads() -> int:
    return os.cpu_count() or 1


def _time_loop(told: dict[str, Any]) -> dict[str, float]:
    """Tokens a second of the training loop, and the work of their products a second."""
    import torch

    from engine.runtime.allocator import keep_freed_memory
    from engine.training.trainer import Loop

    keep_freed_memory()
    config = preset("notebook").with_values(**told["corpus"], precision=told["precision"], evaluate_every=1000)
    dataset = prepare(config.data)
    loop = Loop(config, dataset, torch.device("cpu"), time.perf_counter())
    seconds = [_whole_window(loop) for _ in range(WARM + UPDATES)][WARM:]
    rate = config.training.window * config.training.batch_size * UPDATES / sum(seconds)
    return {"tokens_per_second": rate, "work": rate * work_a_token(config, len(dataset.vocabulary))}


def _whole_window(loop: "Loop") -> float:
    """Seconds of the next update that reads a whole window: the plain way leaves out what an epoch ends with."""
    while True:
        if loop.text is None:
            loop.begin_epoch()
        assert loop.text is not None
        is_whole = len(loop.text.columns) - 1 - loop.position >= loop.options.window
        started = time.perf_counter()
        list(loop.read_window())
        if is_whole:
            return time.perf_counter() - started


def _time_products(precision: str) -> float:
    """Operations a second of the fastest matrix product of an LSTM layer's size that PyTorch has here."""
    import torch

    from engine.models.linear import linear

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    rows, inputs, outputs = plain.WINDOW * plain.BATCH, plain.HIDDEN, 4 * plain.HIDDEN
    vectors, weight = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    bias = torch.zeros(outputs, dtype=dtype)
    with torch.no_grad():
        ways = [lambda: vectors @ weight.t(), lambda: linear(vectors, weight, bias)]
        return 2 * rows * inputs * outputs / min(_seconds(way) for way in ways)


def _seconds(way: Any) -> float:
    way()
    taken = []
    for _ in range(20):
        started = time.perf_counter()
        way()
        taken.append(time.perf_counter() - started)
    return float(middle(taken))


if __name__ == "__main__":
    import torch

    told = json.loads(sys.argv[1])
    torch.set_num_threads(told["threads"])
    print(json.dumps(_time_loop(told) if told["what"] == "loop" else _time_products(told["precision"])))
