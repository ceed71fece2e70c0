"""Validation bits per character of models that were trained on the same text for the same time.

`python -m lotr_tui.bench.training.equal_time --text FILE --seconds 600` trains the Transformer of the preset `gpt`, a
nanoGPT-style model of its size, and the LSTM of the preset `base`, one after the other with the same tokenizer, and
prints a table. A model that is done is not trained again, and one that was interrupted continues.
"""

import argparse
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from engine.analysis.bits_per_character import count_validation_characters
from engine.config import Config
from engine.data.dataset import Dataset, load_dataset
from engine.presets import get_preset
from engine.runs.loading import load_model
from engine.storage.files import app_home, write_atomically
from lotr_tui.bench.training import nanogpt_loop
from lotr_tui.bench.training.budget import train_within
from lotr_tui.bench.training.corpora import prepare_tales
from lotr_tui.bench.training.nanogpt_loop import NanoGPTTraining
from lotr_tui.bench.training.nanogpt_model import NanoGPT, NanoGPTConfig

SAVE_INTERVAL = 30.0
"""Seconds of training that an interruption loses at most."""
MODELS = ("transformer", "nanogpt", "lstm")
PRESETS = {"transformer": "gpt", "nanogpt": "gpt", "lstm": "base"}


@dataclass(frozen=True)
class EqualTimeResult:
    """Result of one training."""

    model: str
    parameters: int
    seconds: float
    num_tokens: int
    """Tokens read, some of them several times."""
    valid_bits_per_character: float


@dataclass(frozen=True)
class EqualTimeOptions:
    """Options of the comparison."""

    runs_dir: Path
    """Folder of the runs and results."""
    seconds: float
    """Training time of each model."""
    settings: Mapping[str, Any]
    """Settings of all configurations: the corpus."""
    threads: int = 0
    """CPU threads; 0 for all cores."""
    peer_lr: float = nanogpt_loop.PEAK_LR
    """Peak learning rate of the nanoGPT-style model."""

    def config(self, model: str) -> Config:
        """Return the configuration of a model: its preset on the CPU in fp32."""
        settings: dict[str, Any] = {"precision": "fp32", "device": "cpu", "checkpoint_seconds": SAVE_INTERVAL}
        settings |= {"threads": self.threads, **self.settings}
        return get_preset(PRESETS[model]).with_values(**settings)


def compare_at_equal_time(
    options: EqualTimeOptions, models: Sequence[str] = MODELS, report: Callable[[str], None] = print
) -> list[EqualTimeResult]:
    """Train each model that is not done yet, and return all results."""
    options.runs_dir.mkdir(parents=True, exist_ok=True)
    results = []
    for model in models:
        name = f"{model}-{options.seconds:g}s"
        if model == "nanogpt":
            name += f"-{options.peer_lr:g}"
        file = options.runs_dir / f"{name}.json"
        if not file.exists():
            train = _train_nanogpt if model == "nanogpt" else _train_run
            write_atomically(file, json.dumps(asdict(train(model, name, options, report))).encode())
        results.append(EqualTimeResult(**json.loads(file.read_text())))
    return results


def _train_run(model: str, name: str, options: EqualTimeOptions, report: Callable[[str], None]) -> EqualTimeResult:
    training = train_within(options.config(model), name, options.runs_dir, options.seconds, report)
    bits = load_model(training.path).bits_per_character
    return EqualTimeResult(
        model, training.parameters, training.seconds, training.num_tokens, math.nan if bits is None else bits
    )


def _train_nanogpt(model: str, name: str, options: EqualTimeOptions, report: Callable[[str], None]) -> EqualTimeResult:
    config = options.config(model)
    torch.set_num_threads(options.threads or os.cpu_count() or 1)
    dataset = load_dataset(config.data)
    network = NanoGPT(NanoGPTConfig.from_preset(config, len(dataset.tokenizer)), config.training.seed)
    training = NanoGPTTraining(network, dataset.train, config.training.batch_size, options.peer_lr)
    checkpoint = options.runs_dir / f"{name}.safetensors"
    if checkpoint.exists():
        training.load(checkpoint)
    training.train_for(options.seconds, checkpoint, SAVE_INTERVAL, report)
    return EqualTimeResult(
        model=model,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        seconds=training.seconds,
        num_tokens=training.num_steps * training.tokens_per_step,
        valid_bits_per_character=_bits_per_character(network, dataset),
    )


def _bits_per_character(network: NanoGPT, dataset: Dataset) -> float:
    num_characters, untokenized_bits = count_validation_characters(dataset)
    token_bits = -float(network.score_sequence(dataset.valid).sum()) / math.log(2)
    return (token_bits + untokenized_bits) / num_characters


def to_markdown(results: Sequence[EqualTimeResult]) -> str:
    """Return the results as a table."""
    lines = [
        "| model | parameters | seconds | tokens/s | tokens read | bits per character, valid |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for result in results:
        figures = (
            f"{result.parameters:,}",
            f"{result.seconds:.0f}",
            f"{result.num_tokens / result.seconds:,.0f}",
            f"{result.num_tokens / 1e6:.2f} M",
            f"{result.valid_bits_per_character:.3f}",
        )
        lines.append(f"| {' | '.join([result.model, *figures])} |")
    return "\n".join(lines)


def main() -> None:
    """Read the options, compare, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    corpus = parser.add_mutually_exclusive_group(required=True)
    corpus.add_argument("--text", type=Path, help="text file, or folder of the books of the tales")
    corpus.add_argument("--csv", type=Path, help="dialogues")
    parser.add_argument("--seconds", type=float, default=600.0, help="training time of each model")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for all cores")
    parser.add_argument("--peer-lr", type=float, default=nanogpt_loop.PEAK_LR, help="learning rate of the nanoGPT")
    parser.add_argument("--only", choices=MODELS, action="append", help="model to train; repeatable")
    parser.add_argument("--runs-dir", type=Path, default=app_home() / "equal-time", help="folder of runs and results")
    parser.add_argument("--json", action="store_true", help="print one JSON object per model")
    arguments = parser.parse_args()
    if arguments.csv is None:
        text = prepare_tales(arguments.text, arguments.runs_dir)
        settings = {"corpus": str(text.resolve()), "corpus_format": "text"}
    else:
        settings = {"corpus": str(arguments.csv.resolve())}
    options = EqualTimeOptions(arguments.runs_dir, arguments.seconds, settings, arguments.threads, arguments.peer_lr)
    results = compare_at_equal_time(options, arguments.only or MODELS, lambda text: print(text, flush=True))
    print("\n".join(json.dumps(asdict(result)) for result in results) if arguments.json else to_markdown(results))


if __name__ == "__main__":
    main()
