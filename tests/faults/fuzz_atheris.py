"""The same as `tests.faults.fuzz` with libFuzzer choosing: `pip install atheris`, which is for Linux on x86-64.

    python -m tests.faults.fuzz_atheris --parser session --seconds 60

It is about as fast and reaches about the same; but it counts how often branches are taken, and sees what bytes and
texts are compared with. What it says is libFuzzer's: after `cov` the branches that were reached, after `#` the inputs.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["engine", "lotr_tui"]):
    from tests.faults.fuzz import FOUND, MOST_BYTES, PARSERS, Fuzzer, limit_memory


def main() -> None:
    """Fuzz one parser; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parser", choices=[*PARSERS], required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--found", type=Path, default=FOUND)
    options = parser.parse_args()
    limit_memory()
    folder = Path(tempfile.mkdtemp())
    corpus, work = folder / "corpus", folder / "work"
    corpus.mkdir()
    work.mkdir()
    for number, content in enumerate(PARSERS[options.parser].seeds):
        (corpus / str(number)).write_bytes(content)
    fuzzer = Fuzzer(options.parser, PARSERS[options.parser], work, options.seed, code=())
    chance = random.Random(options.seed)

    def mutate(content: bytes, most: int, seed: int) -> bytes:
        """By tokens and values, or as libFuzzer does it: byte by byte, and by what the code compares with."""
        return fuzzer.mutations.of(content, most) if chance.random() < 0.7 else atheris.Mutate(content, most)

    limits = [
        f"-max_total_time={options.seconds}",
        f"-max_len={MOST_BYTES}",
        f"-seed={options.seed}",
        "-rss_limit_mb=0",
    ]
    atheris.Setup(
        [sys.argv[0], str(corpus), *limits, "-print_final_stats=1"],
        lambda content: fuzzer.read(content, options.found),
        custom_mutator=mutate,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
