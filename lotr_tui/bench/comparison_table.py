"""Comparison of n-gram models, LSTMs and Transformers of words, characters and byte pairs at equal training time.

`python -m lotr_tui.bench.comparison_table --csv FILE --tales FOLDER --seconds 600` trains each neural model for that
time, on the dialogues alone or first on the tales, and prints a table in Markdown. Models that are done are not trained
again, and a training that was interrupted continues.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from engine.storage.files import app_home, write_atomically
from lotr_tui.bench.comparison_cells import Cell, CellResult, TableOptions, compute_cell, list_cells
from lotr_tui.bench.training.corpora import prepare_dialogues, prepare_tales

COLUMNS = (
    "model", "tokens", "pre-trained", "size", "as words, valid", "as words, test", "as written, valid",
    "as written, test", "words/s", "memory", "training",
)  # fmt: skip


def to_markdown(results: Sequence[CellResult]) -> str:
    """Return the results as a table; the lowest bits per character of each test column are bold."""
    best = {
        form: min((result.test[form] for result in results if form in result.test), default=math.nan)
        for form in ("words", "original")
    }
    lines = [f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for result in results:
        figures = []
        for form in ("words", "original"):
            figures.append(_format_bits(result.valid.get(form)))
            test = _format_bits(result.test.get(form))
            figures.append(f"**{test}**" if result.test.get(form) == best[form] else test)
        row = (
            result.architecture,
            result.tokenizer,
            "tales" if result.is_pretrained else "no",
            result.description,
            *figures,
            f"{result.words_per_second:,.0f}",
            "" if result.peak_megabytes is None else f"{result.peak_megabytes:.0f} MB",
            "" if result.training_seconds is None else f"{result.training_seconds:.0f} s",
        )
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def _format_bits(bits: float | None) -> str:
    return "" if bits is None else f"{bits:.3f}"


def main() -> None:
    """Read the options, compute the cells, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--csv", type=Path, required=True, help="dialogues")
    parser.add_argument("--tales", type=Path, required=True, help="folder of the books of the tales, or a text file")
    parser.add_argument("--seconds", type=float, default=600.0, help="training time of each model")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 for all cores")
    parser.add_argument("--only", action="append", default=[], help="part of the names of cells; repeatable")
    parser.add_argument("--runs-dir", type=Path, default=app_home() / "comparison", help="folder of runs and results")
    arguments = parser.parse_args()
    options = TableOptions(
        runs_dir=arguments.runs_dir,
        seconds=arguments.seconds,
        dialogues=prepare_dialogues(arguments.csv, arguments.runs_dir.resolve()),
        tales=prepare_tales(arguments.tales, arguments.runs_dir.resolve()),
        settings={"threads": arguments.threads},
    )
    print_table(options, arguments.only)


def print_table(options: TableOptions, only: Sequence[str] = (), cells: Sequence[Cell] | None = None) -> None:
    """Compute the cells whose names contain one of `only`, report each, and print and write the table."""
    chosen = [
        cell
        for cell in (list_cells() if cells is None else cells)
        if not only or any(part in cell.name(options.seconds) for part in only)
    ]
    results = []
    for number, cell in enumerate(chosen, 1):
        result = compute_cell(cell, options, lambda text: print(text, flush=True))
        results.append(result)
        bits = ", ".join(f"{form} {value:.3f}" for form, value in result.test.items())
        print(f"{number}/{len(chosen)} {cell.name(options.seconds)}: test {bits} bits per character", flush=True)
    table = to_markdown(results)
    write_atomically(options.runs_dir / "comparison.md", f"{table}\n".encode())
    print(table)


if __name__ == "__main__":
    main()
