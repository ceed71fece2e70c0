"""Steps that train: exact resume, NCCL with one process, Penn Treebank and the tales."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from lotr_tui.bench.processes import module_command
from torch import distributed

from engine.config import Config
from engine.data.dataset import Dataset, load_dataset
from engine.presets import get_preset
from engine.runs.directory import METRICS_FILE
from engine.runs.metrics import read_current_rows
from engine.runtime.distributed import SINGLE_PROCESS, MultiProcessContext
from engine.runtime.process import get_process_info
from tests.support.distributed_worker import Result, train_and_summarize
from tests.support.gpu.options import StepOptions
from tests.support.terminal import set_options

PAPER_EPOCH_SECONDS, PAPER_PERPLEXITIES = 65, "61.2 valid and 58.8 test before fine-tuning"
"""Epoch of the paper's model on an NVIDIA GP100, and its results, as the authors report them."""
MAX_LOSS_DIFFERENCE = 0.01
"""Maximum relative difference between the perplexities of a training with and without NCCL."""
STOP_SECONDS = 30.0
"""Time for the last checkpoint of a training that is stopped, and for the start of this process before it."""


def small_config(options: StepOptions) -> Config:
    """Return a configuration with all dropouts that trains in seconds: on a GPU, on the bundled dialogues."""
    size = 300 if options.is_gpu else 16
    values = {"embedding_size": size, "hidden_size": size, "epochs": 2, "checkpoint_seconds": 0.0}
    return get_preset("default").with_values(**values, **options.corpus_values(), device=options.device)


def check_exact_resume(options: StepOptions) -> list[str]:
    """Compare a training that is stopped and resumed with an uninterrupted one, bit for bit."""
    config = small_config(options)
    dataset = load_dataset(config.data)
    whole, repeated = (_train(config, dataset) for _ in range(2))
    middle = len(whole["steps"]) // 2
    first = train_and_summarize(config, dataset, SINGLE_PROCESS, stop_after=middle)
    path = options.folder / "resume.checkpoint"
    path.write_bytes(first["snapshot"])
    rest = train_and_summarize(config, dataset, SINGLE_PROCESS, checkpoint=path)
    text = f"step {middle} of {len(whole['steps'])}, test perplexity {whole['test']:.3f} and {rest['test']:.3f} resumed"
    assert repeated["sha256"] == whole["sha256"], (
        f"two uninterrupted trainings differ: {whole['test']} {repeated['test']}"
    )
    assert rest["sha256"] == whole["sha256"], f"the resumed training differs: {text}"
    return [f"bit for bit the same weights as without interruption; {text}"]


def check_nccl(options: StepOptions) -> list[str]:
    """Train with one process of `torchrun` and gradients averaged by NCCL, and compare with a plain training.

    The program itself does not use process groups for a single process, so that a program of ours does.
    """
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "1", "-m", "--"]
    command += [__name__, str(options.folder), options.device, f"{options.seconds:.0f}"]
    _run_torchrun(command, options)
    averaged = json.loads((options.folder / "nccl.json").read_text())
    config = small_config(options)
    plain = _train(config, load_dataset(config.data))
    differences = [
        abs(step[1] / expected[1] - 1) for step, expected in zip(averaged["steps"], plain["steps"], strict=True)
    ]
    text = f"{averaged['backend']}, {len(differences)} steps, largest difference of a perplexity {max(differences):.1e}"
    assert averaged["backend"] == ("nccl" if options.is_gpu else "gloo"), text
    assert max(differences) < MAX_LOSS_DIFFERENCE, text
    plain_command = module_command("torch.distributed.run", *command[3:6], "-m", "--", "lotr_tui", "train", "--no-tui")
    settings = ["--preset", "tiny", "--epochs", "1", "--device", options.device, "--run", "torchrun"]
    settings += set_options(options.corpus_values())
    _run_torchrun([*plain_command, *settings], options)
    return [text, "torchrun --nproc-per-node 1 -m -- lotr_tui train: done"]


def _run_torchrun(command: list[str], options: StepOptions) -> None:
    """Run a command within half the time limit. `torchrun` ends its processes if it is terminated, not if killed."""
    process = subprocess.Popen(command)
    try:
        exit_code = process.wait(options.seconds / 2 - 5)
    except subprocess.TimeoutExpired:
        process.terminate()
        exit_code = process.wait()
    assert exit_code == 0, f"torchrun ended with exit code {exit_code}"


def train_in_process_group(options: StepOptions) -> None:
    """Train as the only process of a group, as `check_nccl` starts it, and write the result."""
    context = MultiProcessContext(get_process_info())
    backends: list[str] = []
    new_group = distributed.new_group

    def record_backend(*args: Any, **values: Any) -> Any:
        group = new_group(*args, **values)
        backends.append(distributed.get_backend(group))
        return group

    distributed.new_group = record_backend
    config = small_config(options)
    result = train_and_summarize(config, load_dataset(config.data), context)
    context.destroy()
    backend = backends[-1] if backends else "gloo"
    (options.folder / "nccl.json").write_text(json.dumps({"steps": result["steps"], "backend": backend}))


def train_penn_treebank(options: StepOptions) -> list[str]:
    """Train the paper's model on Penn Treebank until the time is over."""
    folder = options.data / "ptb"
    files = {name: folder / f"ptb.{name}.txt" for name in ("train", "valid", "test")}
    assert files["train"].exists(), f"{folder} is missing; set LOTR_TUI_SHARED"
    arguments = ["--preset", "paper"]
    if not options.is_gpu:
        files = {name: _first_lines(path, options.folder / path.name, 500) for name, path in files.items()}
        arguments += ["--set", "embedding_size=40", "--set", "hidden_size=40", "--set", "min_count=1"]
    arguments += ["--text", str(files["train"]), "--valid", str(files["valid"]), "--test", str(files["test"])]
    rows = train_until(options, "penn-treebank", arguments)
    return [*_describe_speed(rows), f"paper: {PAPER_EPOCH_SECONDS} s per epoch on a GP100; {PAPER_PERPLEXITIES}"]


def pretrain_base(options: StepOptions) -> list[str]:
    """Train the model `base` on the tales until the time is over."""
    books = sorted((options.data / "tales").glob("*.txt"))
    assert books, f"{options.data / 'tales'} has no books; set LOTR_TUI_SHARED"
    text = options.folder / "tales.txt"
    text.write_text("\n".join(path.read_text() for path in (books if options.is_gpu else books[:1])))
    arguments = ["--preset", "base", "--text", str(text)]
    if not options.is_gpu:
        arguments += ["--set", "embedding_size=32", "--set", "hidden_size=32", "--set", "eval_every_steps=20"]
        arguments += ["--set", "vocabulary_size=400"]
    return _describe_speed(train_until(options, "tales", arguments))


def train_until(options: StepOptions, name: str, arguments: list[str]) -> list[dict[str, Any]]:
    """Train by the command line, stop in time as ctrl+c does, and return the rows of the run's record."""
    command = module_command("lotr_tui", "train", "--no-tui", "--device", options.device, "--run", name, *arguments)
    process = subprocess.Popen(command)
    try:
        exit_code = process.wait(options.seconds - STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        exit_code = process.wait(STOP_SECONDS - 5)
    assert exit_code in (0, 130), f"the training ended with exit code {exit_code}"
    return list(read_current_rows(options.folder / "home" / "runs" / name / METRICS_FILE))


def _describe_speed(rows: list[dict[str, Any]]) -> list[str]:
    """Return seconds per epoch, tokens per second and perplexities of a training that was stopped."""
    (started,) = (row for row in rows if row["event"] == "started")
    steps = [row for row in rows if row["event"] == "step"]
    evaluations = [row for row in rows if row["event"] == "evaluated"]
    assert len(steps) > 1, "no step was reported in time"
    epochs, seconds = (steps[-1][name] - steps[0][name] for name in ("epoch", "seconds"))
    assert evaluations[-1]["valid_perplexity"] < evaluations[0]["valid_perplexity"], "validation has not improved"
    return [
        f"{started['parameters']:,} parameters: {seconds / epochs:.1f} s per epoch with validation, "
        f"{started['train_tokens'] * epochs / seconds:,.0f} tokens/s",
        f"after {steps[-1]['epoch']:.2f} epochs and {steps[-1]['seconds']:.0f} s: last validation perplexity "
        f"{evaluations[-1]['valid_perplexity']:.1f}, training {steps[-1]['train_perplexity']:.1f}",
    ]


def _first_lines(source: Path, target: Path, count: int) -> Path:
    target.write_text("\n".join(source.read_text().splitlines()[:count]) + "\n")
    return target


def _train(config: Config, dataset: Dataset) -> Result:
    return train_and_summarize(config, dataset, SINGLE_PROCESS)


if __name__ == "__main__":
    train_in_process_group(StepOptions(Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
