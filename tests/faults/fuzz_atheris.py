"""Fuzzing of one parser with libFuzzer; needs `pip install atheris`, on Linux and x86-64.

    python -m tests.faults.fuzz_atheris --parser session --seconds 60

The rules, the speed and the coverage are about the same as with `tests.faults.fuzz`. In addition, libFuzzer counts how
often branches are taken, and sees the values of comparisons. In its output, the number after `cov` is the number of
branches, and the number after `#` the number of inputs.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["engine", "lotr_tui"]):
    from tests.faults.fork_runner import limit_address_space
    from tests.faults.fuzz import FINDINGS_DIR, MAX_INPUT_BYTES, PARSERS, Fuzzer


def main() -> None:
    """Fuzz one parser; libFuzzer ends the process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parser", choices=[*PARSERS], required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=FINDINGS_DIR, help="folder for inputs that show a problem")
    options = parser.parse_args()
    limit_address_space()
    folder = Path(tempfile.mkdtemp())
    corpus, work = folder / "corpus", folder / "work"
    corpus.mkdir()
    work.mkdir()
    for number, content in enumerate(PARSERS[options.parser].seeds):
        (corpus / str(number)).write_bytes(content)
    fuzzer = Fuzzer(options.parser, PARSERS[options.parser], work, options.seed, paths=())
    rng = random.Random(options.seed)

    def mutate(content: bytes, max_bytes: int, seed: int) -> bytes:
        """Mutate tokens and values or, in some cases, bytes with the mutations of libFuzzer."""
        if rng.random() < 0.7:
            return fuzzer.mutator.mutate(content, rng)[:max_bytes]
        return atheris.Mutate(content, max_bytes)

    limits = [
        f"-max_total_time={options.seconds}",
        f"-max_len={MAX_INPUT_BYTES}",
        f"-seed={options.seed}",
        "-rss_limit_mb=0",
    ]
    atheris.Setup(
        [sys.argv[0], str(corpus), *limits, "-print_final_stats=1"],
        lambda content: fuzzer.try_input(content, options.findings),
        custom_mutator=mutate,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
