"""Time and memory to learn byte pairs on a large text, and to encode the text with them.

`python -m lotr_tui.bench.training.byte_pairs FILE` prints the figures of one file as JSON.
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from engine.config import DataConfig
from engine.data.corpus import read_text
from engine.data.open_vocabulary import OpenIndexer, train_tokenizer
from lotr_tui.bench.measurement import Measurement, median_of_runs
from lotr_tui.bench.processes import module_command, run_with_usage
from lotr_tui.bench.training.growth import write_text

TEXT_MEGABYTES = 110.0
VOCABULARY_SIZE = 8_000
MAX_TRAINING_SECONDS, MAX_ENCODING_SECONDS, MAX_MEGABYTES = 120, 60, 1000


def measure_byte_pairs(repeat: int, megabytes: float = TEXT_MEGABYTES) -> Iterator[Measurement]:
    """Measure a generated text, in new processes with one thread."""
    with tempfile.TemporaryDirectory() as name:
        text = Path(name) / "text.txt"
        write_text(text, int(megabytes * 1e6))
        command = module_command("lotr_tui.bench.training.byte_pairs", text)
        usages = [run_with_usage(command, text.parent) for _ in range(repeat)]
    runs = [json.loads(usage.output) for usage in usages]
    size = f"{megabytes:g} MB"
    yield median_of_runs(
        f"learning {VOCABULARY_SIZE:,} byte pairs, {size}", "s", [run["train"] for run in runs], MAX_TRAINING_SECONDS
    )
    yield median_of_runs(
        f"encoding with byte pairs, {size}", "s", [run["encode"] for run in runs], MAX_ENCODING_SECONDS
    )
    peaks = [usage.peak_megabytes for usage in usages]
    yield median_of_runs(f"byte pairs, {size}, peak memory", "MB", peaks, MAX_MEGABYTES)


def time_byte_pairs(path: Path) -> dict[str, float]:
    """Learn byte pairs on a text and encode it; return the seconds of both, and the number of tokens."""
    lines = read_text(path, 0).lines
    started = time.perf_counter()
    tokenizer = train_tokenizer(lines, DataConfig(tokenizer="bpe", vocabulary_size=VOCABULARY_SIZE))
    train_seconds = time.perf_counter() - started
    indexer = OpenIndexer(tokenizer, "line")
    num_tokens = sum(len(indexer.index_block(block).ids) for block in lines.iter_blocks())
    encode_seconds = time.perf_counter() - started - train_seconds
    return {"train": train_seconds, "encode": encode_seconds, "tokens": num_tokens}


if __name__ == "__main__":
    print(json.dumps(time_byte_pairs(Path(sys.argv[1]))))
