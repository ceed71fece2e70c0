"""How cost grows with the text and with the vocabulary: each size in a process of its own, with one thread.

Time is the processor's, so that it is the same on a machine that others use too.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median as middle

import numpy as np
import numpy.typing as npt

from lotr_tui.bench.figures import Figure, median
from lotr_tui.bench.subjects import ONE_THREAD, SESSION_COMMAND
from lotr_tui.bench.terminal import BenchError

MEGABYTES = (1.1, 11.0, 110.0)
"""Of text: tinyshakespeare's size, ten and a hundred times that."""
VOCABULARIES = (1_000, 10_000, 50_000)
SAMPLES = 2_000
"""Words that training compares with where it does not compare with all."""
MOST_WORDS = 500_000
"""Different ones that a generated text may have; one of 110 MB has most of them."""

# The notebook's pass as it stands in its own code: cut, count, number the words seen three times, look all up.
_TOKENIZERS = """
import json, re, sys, time
from collections import Counter
from engine.data.word_index import WordIndex
from engine.data.lines import BLOCK_BYTES
path = sys.argv[1]
def ours():
    started, index = time.process_time(), WordIndex()
    with open(path, "rb") as file:
        while block := file.read(BLOCK_BYTES):
            index.read((block + file.readline()).decode())
    return time.process_time() - started
def notebook():
    text = open(path).read()
    started = time.process_time()
    words = re.sub(r"[^a-z0-9']+", " ", text.lower()).split()
    cut = time.process_time() - started
    frequent = [word for word, n in Counter(words).items() if n >= 3]
    index = {word: i for i, word in enumerate(["<unk>", "<eos>", *frequent])}
    [index.get(word, 0) for word in words]
    return cut, time.process_time() - started
print(json.dumps([ours(), *notebook()]))
"""
_UPDATES = """
import json, sys, time
import torch
from engine.config import preset
from engine.data.dataset import prepare
from engine.analysis.perplexity import evaluate
from engine.training.trainer import Loop
torch.set_num_threads(1)
path, samples = sys.argv[1], int(sys.argv[2])
config = preset("tiny").with_values(
    corpus=path, corpus_format="text", min_count=1, softmax_samples=samples, smoothing=0.0)
dataset = prepare(config.data)
loop = Loop(config, dataset, torch.device("cpu"), 0.0)
seconds = []
for _ in range(6):
    started = time.process_time()
    list(loop._read_window())
    seconds.append(time.process_time() - started)
started, some = time.process_time(), dataset.valid[:2048]
evaluate(loop.network, some)
print(json.dumps([sorted(seconds[1:])[2], len(some) / (time.process_time() - started)]))
"""


def growth(repeat: int) -> Iterator[Figure]:
    """Texts of 1, 10 and 100 times tinyshakespeare; vocabularies of 1,000, 10,000 and 50,000 words."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rates: list[float] = []
        for megabytes in MEGABYTES:
            text = folder / "text.txt"
            _write_elsewhere(text, int(megabytes * 1e6))
            yield from _reading(text, megabytes, repeat, rates)
        ratio = rates[2] / rates[1]
        yield Figure("data info, time a MB of 100 times the text over that of 10 times", "", ratio, (ratio,), 1.2)
        yield from _training(text, folder, repeat)
        for words in VOCABULARIES:
            text = folder / f"{words}.txt"
            _write_elsewhere(text, 2_000_000, words)
            for samples in (0, SAMPLES):
                if samples < words:
                    yield from _updates(text, words, samples, repeat)


def _reading(text: Path, megabytes: float, repeat: int, rates: list[float]) -> Iterator[Figure]:
    """`data info` from the text and again from what was kept, and the tokenizer beside the notebook's."""
    info = [*SESSION_COMMAND, "data", "info", str(text), "--json"]
    first, again, tokenizers = [], [], []
    for _ in range(repeat):
        shutil.rmtree(text.parent / "cache", ignore_errors=True)
        first.append(measured(info, text.parent))
        again.append(measured(info, text.parent))
        tokenizers.append(json.loads(measured([sys.executable, "-c", _TOKENIZERS, str(text)], text.parent)[2]))
    rates.append(middle([seconds for seconds, _, _ in first]) / megabytes)
    summary = json.loads(first[0][2])
    named = f"{megabytes:g} MB, {summary['words']:,} words, {summary['distinct_words']:,} different"
    yield median(f"data info, {named}", "s", [seconds for seconds, _, _ in first])
    yield median("… its memory", "MB", [memory for _, memory, _ in first], 1000)
    yield median("… the second time", "s", [seconds for seconds, _, _ in again])
    yield median("… cut and indexed", "s", [ours for ours, _, _ in tokenizers])
    yield median("… the notebook's words() alone over that", "", [cut / ours for ours, cut, _ in tokenizers])
    least = 3 if megabytes == MEGABYTES[-1] else None
    whole = [notebook / ours for ours, _, notebook in tokenizers]
    yield median("… its words(), count and look-up over that", "", whole, least=least)


def _training(text: Path, folder: Path, repeat: int) -> Iterator[Figure]:
    """A training on the largest text, what is made of it kept already, up to its first update."""
    options = {"min_count": 100, "softmax_samples": SAMPLES, "smoothing": 0, "evaluate_tokens": 2000, "threads": 1}
    command = [*SESSION_COMMAND, "train", "--no-tui", "--json", "--preset", "tiny", "--text", str(text)]
    command += [word for item in options.items() for word in ("--set", "{}={}".format(*item))]
    runs = [measured(command, folder, until='"step"') for _ in range(repeat)]
    yield median(f"train on {MEGABYTES[-1]:g} MB, to the first update", "s", [seconds for seconds, _, _ in runs])
    yield median("… its memory", "MB", [memory for _, memory, _ in runs], 1000)


def _updates(text: Path, words: int, samples: int, repeat: int) -> Iterator[Figure]:
    runs = [measured([sys.executable, "-c", _UPDATES, str(text), str(samples)], text.parent) for _ in range(repeat)]
    told = [json.loads(output) for _, _, output in runs]
    compared = f"compared with {samples:,} of them" if samples else "compared with all"
    yield median(f"an update, {words:,} words, {compared}", "ms", [1000 * seconds for seconds, _ in told])
    yield median("… its memory", "MB", [memory for _, memory, _ in runs])
    if not samples:
        yield median("… words scored exactly", "words/s", [rate for _, rate in told])


def measured(command: Sequence[str], home: Path, until: str = "") -> tuple[float, float, str]:
    """Seconds of the processor that a command took, the most memory it had, in MB, and what it printed.

    With `until`, it is ended as soon as a line has that. Linux counts what this process had as the command's too, so
    nothing large is done in it.

    Raises:
        BenchError: it fails.
    """
    environment = os.environ | ONE_THREAD | {"LOTR_TUI_HOME": str(home)}
    lines = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)
            if until and until in line:
                process.kill()
                break
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode and not (until and until in lines[-1]):
        raise BenchError(f"{' '.join(command[:5])} … failed with exit code {process.returncode}")
    unit = 1 if sys.platform == "darwin" else 1024
    return used.ru_utime + used.ru_stime, used.ru_maxrss * unit / 1e6, "".join(lines)


def _write_elsewhere(path: Path, size: int, words: int = 0) -> None:
    """`write_text` in a process of its own."""
    script = f"from lotr_tui.bench.training.growth import *; write_text(Path({str(path)!r}), {size}, {words})"
    subprocess.run([sys.executable, "-c", script], check=True)


def write_text(path: Path, size: int, words: int = 0) -> None:
    """Write a text of about so many bytes, in which words are as frequent as real ones (Zipf 1935, Mandelbrot 1953).

    With `words`, it has exactly so many different ones; else the more the longer it is, as real texts do.
    """
    chance = np.random.default_rng(0)
    different = words or MOST_WORDS
    frequencies = (np.arange(different) + 2.7) ** -1.3
    shares = np.cumsum(frequencies / frequencies.sum())
    names = [_name(rank) for rank in range(different)]
    marks = np.array(["", ",", ".", "?"])
    with path.open("w") as file:
        if words:
            file.write("\n".join(" ".join(names[begin : begin + 10]) for begin in range(0, words, 10)) + "\n")
        while file.tell() < size:
            drawn: npt.NDArray[np.int64] = np.searchsorted(shares, chance.random(100_000))
            ends = marks[chance.choice(4, len(drawn), p=[0.85, 0.08, 0.06, 0.01])]
            cut = [names[rank] + mark for rank, mark in zip(drawn.tolist(), ends.tolist(), strict=True)]
            file.write("\n".join(" ".join(cut[begin : begin + 10]) for begin in range(0, len(cut), 10)) + "\n")


def _name(rank: int) -> str:
    """A word that can be said; frequent ones are short."""
    syllables: list[str] = []
    while not syllables or rank:
        rank, rest = divmod(rank, 70)
        syllables.append("bdfghklmnprstv"[rest // 5] + "aeiou"[rest % 5])
    return "".join(syllables)
